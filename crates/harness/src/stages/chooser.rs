//! Who chooses the channels of a cell that stay: a registered selector, or a program.

use std::path::Path;
use std::sync::Arc;

use thinet_graph::ChannelSet;
use thinet_selectors::{Evidence, Needs, Selector};

use super::context::Context;
use super::program::LayerQuestion;
use super::streams;
use crate::error::HarnessError;
use crate::study::{Cell, SelectorCommand};

/// Who chooses the channels of a cell.
pub(super) enum Chooser<'a> {
    Registered(&'static dyn Selector),
    Program(&'a Arc<SelectorCommand>),
}

impl<'a> Chooser<'a> {
    /// The one of a cell.
    pub(super) fn of(cell: &'a Cell) -> Result<Self, HarnessError> {
        match &cell.design.command {
            Some(command) => Ok(Self::Program(command)),
            None => Ok(Self::Registered(thinet_selectors::find(&cell.design.method.selector.name())?)),
        }
    }

    /// The kinds of evidence to gather or read: of those that were planned for a program, the ones that it names in its hello.
    pub(super) fn needs(&self, context: &Context<'_>, cell: &Cell) -> Result<Needs, HarnessError> {
        match self {
            Self::Registered(_) => Ok(cell.needs),
            Self::Program(command) => Ok(context.programs.hello(command)?.needs | Needs::MOMENTS),
        }
    }

    /// The channels of a layer that stay; `folder` is that of the cell.
    pub(super) fn select(
        &self,
        context: &Context<'_>,
        cell: &Cell,
        folder: &Path,
        evidence: &Evidence,
        keep: usize,
    ) -> Result<ChannelSet, HarnessError> {
        let seed = streams::selection(cell.design.seed, &evidence.layer);
        let command = match self {
            Self::Registered(selector) => {
                return Ok(thinet_selectors::select(*selector, evidence, keep, seed)?.kept);
            }
            Self::Program(command) => command,
        };
        let label = cell.design.label();
        let note = |line: String| context.note(&cell.id, format!("{label}: {line}"));
        let all_keep = context.plan.keep_counts(&cell.design, &evidence.layer);
        context.programs.select(&LayerQuestion {
            command,
            evidence,
            keep,
            all_keep,
            seed,
            folder,
            note: &note,
        })
    }
}

//! Who chooses the channels of a cell that stay: a registered selector, a program, or a global allocation.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use thinet_graph::ChannelSet;
use thinet_selectors::{Evidence, Needs, Selector};

use super::allocation;
use super::context::Context;
use super::program::LayerQuestion;
use super::streams;
use crate::error::HarnessError;
use crate::study::{Cell, SelectorCommand};

/// Who chooses the channels of a cell.
pub(super) enum Chooser<'a> {
    Registered(&'static dyn Selector),
    Program(&'a Arc<SelectorCommand>),
    /// The kept channels of each layer, which a stage before fixed.
    Allocated(BTreeMap<String, ChannelSet>),
}

impl<'a> Chooser<'a> {
    /// The one of a cell.
    pub(super) fn of(context: &Context<'_>, cell: &'a Cell) -> Result<Self, HarnessError> {
        match (&cell.allocation, &cell.design.command) {
            (Some(stage), _) => Ok(Self::Allocated(allocation::load(context, stage)?)),
            (None, Some(command)) => Ok(Self::Program(command)),
            (None, None) => {
                Ok(Self::Registered(thinet_selectors::find(&cell.design.method.selector.name())?))
            }
        }
    }

    /// The kinds of evidence to gather or read: of those that were planned for a program, the ones that it names in its hello.
    pub(super) fn needs(&self, context: &Context<'_>, cell: &Cell) -> Result<Needs, HarnessError> {
        match self {
            Self::Registered(_) | Self::Allocated(_) => Ok(cell.needs),
            Self::Program(command) => Ok(context.programs.hello(command)?.needs | Needs::MOMENTS),
        }
    }

    /// The channels of a layer that stay; `folder` is that of the cell. An allocation has its own numbers in place of `keep`.
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
            Self::Allocated(kept) => {
                return kept.get(&evidence.layer).cloned().ok_or_else(|| {
                    let problem = format!("its allocation names no channels of layer {:?}", evidence.layer);
                    HarnessError::Damaged { path: folder.to_owned(), problem }
                });
            }
        };
        let label = cell.design.label();
        let note = |line: String| context.note(&cell.id, format!("{label}: {line}"));
        let all_keep = context.plan.keep_counts(&cell.design, &evidence.layer);
        context.programs.select(&LayerQuestion {
            command,
            evidence,
            keep,
            all_keep,
            is_global: false,
            seed,
            folder,
            note: &note,
        })
    }
}

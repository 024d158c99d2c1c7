//! The refit of cut layers: a factor for each channel (Luo et al. 2017, eq. 7), or other weights of the layers that read them.

use thinet_graph::{ChannelSet, channel_group};
use thinet_models::{Net, read_weights, scale_readers, set_read_weights};
use thinet_reconstruction::{KernelRefit, Patches, ReconstructionError, RefitInput, reconstruction_error};
use thinet_report::records::{Metric, Phase, Row};
use thinet_selectors::Evidence;

use super::{CellRun, Halt, State};
use crate::error::HarnessError;
use crate::stages::calibrate::{Sample, gather_patches};
use crate::stages::context::{NOT_FINITE, is_finite};

/// A layer that is cut, and its evidence before the cut.
#[derive(Clone, Copy)]
pub(super) struct Cut<'a> {
    pub(super) name: &'a str,
    pub(super) kept: &'a ChannelSet,
    pub(super) evidence: &'a Evidence,
}

/// What a reconstruction found for some layers, computed before they are cut and applied afterwards.
pub(super) enum Refit {
    /// For each layer the factors of its kept channels, and the reconstruction error if it is known.
    Scales(Vec<(Vec<f64>, Option<ReconstructionError>)>),
    /// The net before the cut with other weights of the layers that read the kept channels, and the error of each layer.
    Kernels { net: Net, errors: Vec<ReconstructionError> },
}

impl CellRun<'_> {
    /// Refits the layers on `net`, before any of them is cut.
    pub(super) fn refit(&self, net: &Net, cuts: &[Cut<'_>], sample: Sample) -> Result<Refit, HarnessError> {
        if self.reconstructor.reads() != RefitInput::Patches {
            let scales = cuts.iter().map(|cut| self.scales(cut)).collect::<Result<_, HarnessError>>()?;
            return Ok(Refit::Scales(scales));
        }
        let mut refitted = Net { graph: net.graph.clone(), weights: net.weights.deep_copy()? };
        let mut errors = Vec::with_capacity(cuts.len());
        for cut in cuts {
            errors.push(self.refit_readers(net, cut, sample, &mut refitted)?);
        }
        Ok(Refit::Kernels { net: refitted, errors })
    }

    fn scales(&self, cut: &Cut<'_>) -> Result<(Vec<f64>, Option<ReconstructionError>), HarnessError> {
        let moments = cut.evidence.moments.as_ref();
        let scale = self.reconstructor.refit(moments, cut.kept)?;
        let error = moments.map(|moments| reconstruction_error(moments, cut.kept, &scale));
        Ok((scale, error))
    }

    /// Gives the readers of a layer other weights in `refitted`, from what they read in `net`.
    fn refit_readers(
        &self,
        net: &Net,
        cut: &Cut<'_>,
        sample: Sample,
        refitted: &mut Net,
    ) -> Result<ReconstructionError, HarnessError> {
        let group = channel_group(&net.graph, cut.name)?;
        let step = format!("{}: products of patches", cut.name);
        let progress = |done, total| self.context.progress(&self.cell.id, &step, done, total);
        let patches = gather_patches(self.context, net, &group, sample, &progress)?;
        let mut refits: Vec<KernelRefit> = Vec::with_capacity(patches.len());
        for (reader, patches) in group.readers.iter().zip(&patches) {
            let weights = read_weights(&net.weights, reader)?;
            let patches = Patches { moments: &patches.moments, taps: patches.taps, weights: &weights };
            let refit = self.reconstructor.refit_kernels(&patches, cut.kept)?;
            set_read_weights(&mut refitted.weights, reader, cut.kept, &refit.weights)?;
            refits.push(refit);
        }
        Ok(KernelRefit::error(&refits))
    }

    /// Applies a refit to the net after the cut; adds rows with the reconstruction error before and after it.
    pub(super) fn apply(&self, state: &mut State, cuts: &[Cut<'_>], refit: Refit) -> Result<(), Halt> {
        match refit {
            Refit::Scales(scales) => {
                for (cut, (scale, error)) in cuts.iter().zip(scales) {
                    self.add_error(state, cut.name, error);
                    self.rescale(state, cut.name, &scale)?;
                }
            }
            Refit::Kernels { net, errors } => {
                state.net = net;
                for (cut, error) in cuts.iter().zip(errors) {
                    self.add_error(state, cut.name, Some(error));
                    self.cut(state, cut.name, cut.kept)?;
                }
                if !is_finite(&state.net.weights)? {
                    return Err(Halt::Diverged(format!("refitted weights are {NOT_FINITE}")));
                }
            }
        }
        Ok(())
    }

    fn add_error(&self, state: &mut State, layer: &str, error: Option<ReconstructionError>) {
        let Some(error) = error else { return };
        for (phase, value) in [(Phase::AfterCut, error.before), (Phase::AfterReconstruction, error.after)] {
            let (layer, metric) = (layer.to_owned(), Metric::ReconstructionError);
            state.facts.rows.push(Row { layer, phase, metric, value });
        }
        let rows = &state.facts.rows;
        self.context.measured(&self.cell.id, &rows[rows.len() - 2..]);
    }

    fn rescale(&self, state: &mut State, layer: &str, scale: &[f64]) -> Result<(), Halt> {
        if scale.iter().all(|&w| w == 1.0) {
            return Ok(());
        }
        let group = channel_group(&state.net.graph, layer)?;
        scale_readers(&mut state.net.weights, &group, scale)?;
        state.net.weights = state.net.weights.to_format(self.context.feed.format)?;
        if !is_finite(&state.net.weights)? {
            return Err(Halt::Diverged(format!("{layer}: refitted weights are {NOT_FINITE}")));
        }
        Ok(())
    }

    /// Tests the refitted net; without a reconstruction it is the net after the cut.
    pub(super) fn evaluate_reconstruction(&self, state: &mut State) -> Result<(), Halt> {
        if self.reconstructor.reads() != RefitInput::Nothing {
            let tested = self.context.evaluate(&self.cell.id, &state.net, Phase::AfterReconstruction)?;
            return state.add(tested);
        }
        let rows = &mut state.facts.rows;
        let after_cut = rows.iter().filter(|row| row.layer.is_empty() && row.phase == Phase::AfterCut);
        let after_cut = after_cut.map(|row| Row { phase: Phase::AfterReconstruction, ..row.clone() });
        rows.extend(after_cut.collect::<Vec<_>>());
        Ok(())
    }
}

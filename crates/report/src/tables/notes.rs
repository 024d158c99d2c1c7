//! Notes that several tables of a study share.

use super::groups::Group;
use super::lines::{Line, all_uncut_rates, phases_shown};
use super::markdown::grouped;
use crate::published::{Figure, Point, Published, Series};
use crate::records::{Mode, Phase, StudyRecord, VariantRecord};

/// The note on the study of a table.
pub(super) fn origin(study: &StudyRecord) -> String {
    let StudyRecord { name, run, dataset, net, .. } = study;
    let modes: Vec<&str> = modes(study).into_iter().map(Mode::name).collect();
    let training = if study.is_bf16 { "; trained in bfloat16" } else { "" };
    format!("Experiment `{name}`, run `{run}`: {dataset}; {net}; {}{training}.", modes.join(" and "))
}

/// The modes of a study, one unless variants differ in it.
pub(super) fn modes(study: &StudyRecord) -> Vec<Mode> {
    let mut modes = Vec::new();
    for variant in &study.variants {
        if !modes.contains(&variant.mode) {
            modes.push(variant.mode);
        }
    }
    if modes.is_empty() { vec![study.mode] } else { modes }
}

/// The note on the variants, if there are any.
pub(super) fn variants_note(study: &StudyRecord) -> Option<String> {
    let words = |variant: &VariantRecord| match variant.overrides.as_str() {
        "" => format!("{} (as the spec)", variant.name),
        overrides => format!("{} ({overrides})", variant.name),
    };
    let variants: Vec<String> = study.variants.iter().map(words).collect();
    (!variants.is_empty())
        .then(|| format!("Variants of the spec on the same dense nets: {}.", variants.join("; ")))
}

/// The note on the columns `cut`, `refit` and `tuned`.
pub(super) fn phases_note(study: &StudyRecord, lines: &[Line]) -> String {
    let of_mode = |mode: Mode| match mode {
        Mode::OneShot => "all layers cut at once, nothing refitted",
        Mode::LayerByLayer => {
            "after the last layer's cut, that cut not refitted, all earlier layers already refitted and tuned"
        }
    };
    let cut = match modes(study)[..] {
        [mode] => format!("cut: {}", of_mode(mode)),
        ref several => {
            let each: Vec<String> =
                several.iter().map(|mode| format!("cut ({mode}): {}", of_mode(*mode))).collect();
            each.join("; ")
        }
    };
    let mut note = format!("{cut}; refit: after the reconstruction (without one the same net)");
    for phase in phases_shown(lines) {
        match phase {
            Phase::AfterBatchNormEstimate => note.push_str(
                "; BN: the refitted net with its batch-norm statistics estimated again on the calibration images, weights \
                 untouched",
            ),
            Phase::AfterFineTune => note.push_str("; tuned: after fine-tuning"),
            Phase::Dense | Phase::AfterCut | Phase::AfterReconstruction => {}
        }
    }
    note + "."
}

/// The word for the last phase that is shown.
pub(super) fn last_word(lines: &[Line]) -> &'static str {
    match phases_shown(lines).last() {
        Some(Phase::AfterReconstruction) => "refit",
        Some(Phase::AfterBatchNormEstimate) => "BN",
        _ => "tuned",
    }
}

/// The note on keep rates that cut nothing, if there are any.
pub(super) fn uncut_note(study: &StudyRecord) -> Option<String> {
    let rates: Vec<String> = all_uncut_rates(study).iter().map(f64::to_string).collect();
    let note = || {
        format!(
            "Keep rate {}: nothing is cut, so all methods agree; it is the dense net, reported once and not tuned any further.",
            rates.join(", ")
        )
    };
    (!rates.is_empty()).then(note)
}

/// Describes the test images behind accuracies, with their number where it is stored.
pub(super) fn test_images(counts: impl IntoIterator<Item = Option<u64>>) -> String {
    let mut known: Vec<u64> = Vec::new();
    let mut is_complete = true;
    for count in counts {
        match count {
            Some(count) => known.push(count),
            None => is_complete = false,
        }
    }
    let rest = if is_complete { "" } else { " (of some nets their number is not stored)" };
    match (known.iter().min(), known.iter().max()) {
        (Some(&least), Some(&most)) if least == most => format!("{} test images{rest}", grouped(least)),
        (Some(&least), Some(&most)) => format!(
            "test images, {} to {} of them{rest} (column `test_images`: damaged ones are left out)",
            grouped(least),
            grouped(most)
        ),
        _ => "test images".to_owned(),
    }
}

/// The notes on the column of published numbers, and on those of its marks that occur.
pub(super) fn published_notes(groups: &[Group], published: &Published) -> Vec<String> {
    let figure = &published.figure4;
    let shown: Vec<(&Series, Point)> = groups.iter().filter_map(|g| g.published).collect();
    if shown.is_empty() {
        return vec![format!(
            "None of these methods and keep rates is in the paper's {} figure.",
            figure.data
        )];
    }
    let mut notes = vec![format!(
        "Paper: top-1 on {}, VGG-16-GAP, first ten convolutions, after fine-tuning (ICCV 2017, figure 4), read in: \
         {}. Another dataset and another net: a description, not a target.",
        figure.data,
        published.source(&figure.source)
    )];
    for (series, point) in &shown {
        let Some(why) = point.suspect else { continue };
        let note = format!("(!) {}: {why}; never ranked.", series.name);
        // Every variant shows the same points.
        if !notes.contains(&note) {
            notes.push(note);
        }
    }
    if shown.iter().any(|(series, _)| !series.in_paper) {
        notes.push("(script): in the authors' plotting script, not in the paper's figure.".to_owned());
    }
    if !figure.verified {
        notes.push("(unverified): recalled from the paper, no source opened.".to_owned());
    }
    notes
}

/// The note that names the sources of published numbers, each once; `None` without any.
pub(super) fn sources_note<'a>(
    published: &'a Published,
    figures: impl IntoIterator<Item = &'a Figure>,
) -> Option<String> {
    let mut sources: Vec<&str> = Vec::new();
    for figure in figures {
        let source = published.source(&figure.source);
        if !sources.contains(&source) {
            sources.push(source);
        }
    }
    (!sources.is_empty()).then(|| format!("Published numbers read in: {}.", sources.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::sample::study;

    #[test]
    fn the_origin_names_trainings_in_bfloat16_alone() {
        assert!(origin(&study()).ends_with("; layer-by-layer."));
        let study = StudyRecord { is_bf16: true, ..study() };
        assert!(origin(&study).ends_with("; layer-by-layer; trained in bfloat16."));
    }
}

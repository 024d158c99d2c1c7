//! Refitting whole kernels: in both modes, with and without a selector that looks at data, killed and resumed.

use thinet_harness::events::Silent;
use thinet_report::records::{Metric, Phase, Status};

use crate::fixture::{Fixture, SPEC, one_shot};

/// The fixture's study with whole kernels refitted by a method that looks at the data and one that does not.
fn spec() -> String {
    let random = "selector = \"random\"\n";
    SPEC.replace("channel-scale", "full-kernel")
        .replace(random, &format!("{random}reconstruction = \"full-kernel\"\n"))
}

#[test]
fn whole_kernels_are_refitted_in_both_modes_and_lower_the_error_of_every_layer() {
    let fixture = Fixture::new();
    for (spec, results) in [(spec(), "layers"), (one_shot(&spec()), "once")] {
        let outcome = fixture.run(&spec, results, &Silent);
        assert!(outcome.failure.is_none(), "{:?}", outcome.failure);
        let refitted = outcome.study.cells.iter().filter(|cell| cell.reconstruction == "full-kernel");
        let mut layers = 0;
        for cell in refitted {
            assert_eq!(cell.status, Status::Done);
            let errors = |phase| {
                let of_phase = cell
                    .rows
                    .iter()
                    .filter(move |row| row.phase == phase && row.metric == Metric::ReconstructionError);
                of_phase.map(|row| (row.layer.as_str(), row.value)).collect::<Vec<_>>()
            };
            let (before, after) = (errors(Phase::AfterCut), errors(Phase::AfterReconstruction));
            assert_eq!(before.len(), after.len());
            for ((layer, before), (_, after)) in before.iter().zip(&after) {
                assert!(after <= before && *before > 0.0, "{layer}: {before} to {after}");
                layers += usize::from(after < before);
            }
            let loss = |phase| {
                let mut rows =
                    cell.rows.iter().filter(|row| row.layer.is_empty() && row.metric == Metric::Loss);
                rows.find(|row| row.phase == phase).unwrap().value
            };
            assert_ne!(loss(Phase::AfterCut), loss(Phase::AfterReconstruction), "the refitted net is tested");
        }
        assert!(layers > 0, "no error was lowered");
        // The same numbers in a second folder.
        let again = fixture.run(&spec, &format!("{results}-again"), &Silent);
        assert_eq!(again.study.cells, outcome.study.cells);
    }
}

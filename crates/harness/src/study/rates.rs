//! The keep rates of a study's cells: those that its spec lists, and those that meet its targets of FLOPs.

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use thinet_graph::{Convention, Graph, NarrowNet, at_keep_rates, keep_rate_for_flops};
use thinet_report::records::Size;

use crate::error::HarnessError;
use crate::study::resolved::size_of;
use crate::study::{Spec, allocation, check};

/// A keep rate of a study with the net that it leaves.
pub(super) struct CellRate {
    pub(super) rate: f64,
    /// The target of `prune.flops` that it meets, if there is one.
    pub(super) flops_target: Option<f64>,
    /// Channels kept per pruned layer, in pruning order; of a global allocation those that costs are estimated with.
    pub(super) keep: Arc<[(String, usize)]>,
    pub(super) graph: Arc<Graph>,
    pub(super) size: Size,
}

/// The listed keep rates, then those that meet the targets of FLOPs. Where a listed rate has the widths that meet a target, it stands
/// for both.
///
/// FLOPs are those of tables: [`Convention::Paper`].
pub(super) fn cell_rates(spec: &Spec, path: &Path, dense: &Graph) -> Result<Vec<CellRate>, HarnessError> {
    let prune = &spec.prune;
    if prune.is_global() {
        return allocation::rates(spec, path, dense);
    }
    let mut rates = Vec::new();
    for &rate in &prune.keep_rates {
        rates.push(at_rate(spec, dense, rate).map_err(|e| check::value(path, "prune.keep-rates", &e))?);
    }
    for &target in &prune.flops {
        let wrong = |problem: &dyn Display| check::value(path, "prune.flops", problem);
        let rate = keep_rate_for_flops(dense, &prune.layers, &prune.layer_rates, Convention::Paper, target)
            .map_err(|e| wrong(&e))?;
        let found = at_rate(spec, dense, rate).map_err(|e| wrong(&e))?;
        match rates.iter_mut().find(|known| known.keep == found.keep) {
            Some(CellRate { flops_target: Some(other), .. }) => {
                let problem =
                    format!("{other} and {target} give the same net, at keep rate {rate}; leave one out");
                return Err(wrong(&problem));
            }
            Some(listed) => listed.flops_target = Some(target),
            None => rates.push(CellRate { flops_target: Some(target), ..found }),
        }
    }
    Ok(rates)
}

fn at_rate(spec: &Spec, dense: &Graph, rate: f64) -> Result<CellRate, thinet_graph::GraphError> {
    let NarrowNet { kept, graph } =
        at_keep_rates(dense, &spec.prune.layers, |layer| spec.prune.rate_of(layer, rate))?;
    Ok(CellRate {
        rate,
        flops_target: None,
        keep: kept.into(),
        size: size_of(&graph),
        graph: Arc::new(graph),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::study::ResolvedStudy;
    use crate::study::spec::MINIMAL;
    use crate::study::variants::variants;
    use crate::study::work::tests::resolved;

    /// The minimal spec with these lines in place of its keep rates.
    fn spec(lines: &str) -> String {
        MINIMAL.replace("prune.keep-rates = [0.5]", &format!("prune.layers = [\"conv2\"]\n{lines}"))
    }

    /// Keep rate, target and channels kept in conv2 of each cell.
    fn cells(lines: &str) -> Vec<(f64, Option<f64>, usize)> {
        let study = resolved(&spec(lines));
        study.cells.iter().map(|cell| (cell.keep_rate, cell.flops_target, cell.keep[0].1)).collect()
    }

    fn problem(lines: &str) -> String {
        let path = Path::new("x.toml");
        let spec = crate::study::Spec::parse(&spec(lines), path).unwrap();
        let variants = variants(&spec, path).unwrap();
        ResolvedStudy::new(spec, variants, path, 10).unwrap_err().to_string()
    }

    // FLOPs with c of 12 channels in conv2, behind conv1's 8 channels and a pool, before conv3's 16, on images of 28×28:
    // conv1 8·9·784 = 56,448 multiply-adds, conv2 c·8·9·196 = 14,112·c, conv3 16·c·9·196 = 28,224·c, fc 10·16·196 = 31,360;
    // batch norms 4·(8 + c + 16). Together 2·(87,808 + 42,336·c) + 96 + 4·c = 175,712 + 84,676·c, and 1,191,824 of the dense net.
    #[test]
    fn a_target_becomes_the_rate_with_the_fewest_decimals_of_the_largest_net_that_meets_it() {
        // 0.5: 595,912, so c ≤ 4.96; 4 of 12 up to below 5 of 12. 0.99: c ≤ 11.86.
        assert_eq!(cells("prune.flops = [0.5, 0.99]"), [(0.4, Some(0.5), 4), (0.92, Some(0.99), 11)]);
        let study = resolved(&spec("prune.flops = [0.5]"));
        assert_eq!((study.cells[0].size.paper.flops, study.size.paper.flops), (514_416, 1_191_824));
        // Exactly the FLOPs of 4 channels.
        let exact = 514_416.0 / 1_191_824.0;
        assert_eq!(cells(&format!("prune.flops = [{exact}]"))[0].2, 4);
        assert_eq!(cells(&format!("prune.flops = [{}]", exact - 1e-12))[0].2, 3);
    }

    #[test]
    fn a_listed_rate_with_the_widths_of_a_target_stands_for_both() {
        let rates = "prune.keep-rates = [0.75, 0.34]\nprune.flops = [0.5, 0.25]";
        // 0.25: 297,956, so c ≤ 1.4.
        assert_eq!(cells(rates), [(0.75, None, 9), (0.34, Some(0.5), 4), (0.1, Some(0.25), 1)]);
    }

    #[test]
    fn a_control_is_trained_at_the_rate_of_a_target() {
        let study = resolved(&spec("from-scratch = { epochs = 1, lr = 0.1 }\nprune.flops = [0.5]"));
        let found: Vec<_> = study.cells.iter().map(|cell| (cell.is_from_scratch, cell.keep[0].1)).collect();
        assert_eq!(found, [(false, 4), (true, 4)]);
    }

    #[test]
    fn each_variant_meets_a_target_with_its_own_layers() {
        let variants = "\n[[variants]]\nname = \"conv2\"\n[[variants]]\nname = \"conv3\"\n\"prune.layers\" = [\"conv3\"]";
        let study = resolved(&(spec("prune.flops = [0.5]") + variants));
        let found: Vec<_> = study.cells.iter().map(|cell| (cell.keep_rate, cell.keep[0].clone())).collect();
        // c of 16 in conv3: 2·(225,792 + 21,168·c + 1,960·c) + 80 + 4·c ≤ 595,912, so c ≤ 3.1.
        assert_eq!(found, [(0.4, ("conv2".to_owned(), 4)), (0.2, ("conv3".to_owned(), 3))]);
    }

    #[test]
    fn targets_that_cannot_be_met_alone_or_apart_are_named() {
        // One channel of 12 leaves 260,388 of 1,191,824.
        assert_eq!(
            problem("prune.flops = [0.5, 0.2]"),
            "x.toml: prune.flops: 0.2 of the dense net's FLOPs cannot be reached: the least is 0.2185 (rounded up), at keep \
             rate 0.1, which leaves one channel in the narrowest layer"
        );
        assert_eq!(
            problem("prune.flops = [0.5, 0.49]"),
            "x.toml: prune.flops: 0.5 and 0.49 give the same net, at keep rate 0.4; leave one out"
        );
        let own = problem("prune.layer-rates = { conv2 = 0.5 }\nprune.flops = [0.5]");
        assert!(
            own.starts_with("x.toml: prune.flops: every pruned layer has a keep rate of its own"),
            "{own}"
        );
    }
}

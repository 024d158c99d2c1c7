//! The largest uniform keep rate whose net costs no more than a target, and the nets that keep rates leave.
//!
//! FLOPs are a step function of the keep rate: floor(C·r) channels stay in a group of C, so they change only at the rates k/C. The
//! search runs over these fractions in whole numbers.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::channels::kept_channels;
use crate::count::{Convention, count};
use crate::graph::Graph;
use crate::group::channel_group;
use crate::surgery::with_channels;
use crate::{Counts, GraphError};

/// A net that keep rates leave.
#[derive(Clone, Debug, PartialEq)]
pub struct NarrowNet {
    /// Channels kept in each pruned group, in the order of the groups.
    pub kept: Vec<(String, usize)>,
    /// The net of these widths.
    pub graph: Graph,
}

/// The net in which each of these groups keeps floor(C·r) channels of its rate; see [`kept_channels`].
///
/// # Errors
/// If a group cannot be pruned, or a rate is outside (0, 1] or leaves a group with no channel.
pub fn at_keep_rates(
    dense: &Graph,
    groups: &[String],
    rate_of: impl Fn(&str) -> f64,
) -> Result<NarrowNet, GraphError> {
    let kept_in = |name: &String| {
        let channels = channel_group(dense, name)?.channels;
        Ok((name.clone(), kept_channels(name, channels, rate_of(name))?))
    };
    at_widths(dense, groups.iter().map(kept_in).collect::<Result<_, GraphError>>()?)
}

/// The largest keep rate, the same for all groups without a rate of their own, at which the net's FLOPs are at most `target` times
/// those of the dense net. Every group keeps at least one channel.
///
/// All rates up to the next multiple of some 1/C leave the same widths; of these it is the one with the fewest decimals, and of
/// several with as many the smallest: 0.6, not 0.59375, for 19 to 20 of 32 channels.
///
/// # Errors
/// [`GraphError::FlopsTarget`] if the target is outside (0, 1), [`GraphError::NoUniformRate`] if every group has a rate of its own, and
/// [`GraphError::FlopsUnreachable`] if the smallest rate that leaves a channel in each group costs more. As [`at_keep_rates`].
pub fn keep_rate_for_flops(
    dense: &Graph,
    groups: &[String],
    own_rates: &BTreeMap<String, f64>,
    convention: Convention,
    target: f64,
) -> Result<f64, GraphError> {
    if !(target > 0.0 && target < 1.0) {
        return Err(GraphError::FlopsTarget(target));
    }
    let search = Search::new(dense, groups, own_rates, convention)?;
    let smallest = search.smallest_rate()?;
    let least = search.flops_fraction(smallest)?;
    if least > target {
        return Err(GraphError::FlopsUnreachable { target, least, rate: search.decimal(smallest) });
    }
    let rates = search.rates(smallest);
    // Rates below `within` meet the target, those from `beyond` on do not: FLOPs grow with each step.
    let (mut within, mut beyond) = (0, rates.len());
    while within + 1 < beyond {
        let middle = within.midpoint(beyond);
        if search.flops_fraction(rates[middle])? <= target { within = middle } else { beyond = middle }
    }
    Ok(search.decimal(rates[within]))
}

/// `kept` of `channels`, in (0, 1].
#[derive(Clone, Copy, Debug)]
struct Fraction {
    kept: usize,
    channels: usize,
}

impl Fraction {
    fn compare(&self, other: &Self) -> Ordering {
        let product = |kept: usize, channels: usize| kept as u128 * channels as u128;
        product(self.kept, other.channels).cmp(&product(other.kept, self.channels))
    }

    /// floor(C·k/K).
    fn of(self, channels: usize) -> usize {
        (channels as u128 * self.kept as u128 / self.channels as u128) as usize
    }
}

/// The groups of a net that share one keep rate, and what the net costs at it.
struct Search<'a> {
    dense: &'a Graph,
    convention: Convention,
    dense_flops: u64,
    /// The groups that follow the rate, with their channels.
    uniform: Vec<(&'a String, usize)>,
    /// Channels kept in the groups with rates of their own.
    own: Vec<(String, usize)>,
}

impl<'a> Search<'a> {
    fn new(
        dense: &'a Graph,
        groups: &'a [String],
        own_rates: &BTreeMap<String, f64>,
        convention: Convention,
    ) -> Result<Self, GraphError> {
        let (mut uniform, mut own) = (Vec::new(), Vec::new());
        for name in groups {
            let channels = channel_group(dense, name)?.channels;
            match own_rates.get(name) {
                Some(rate) => own.push((name.clone(), kept_channels(name, channels, *rate)?)),
                None => uniform.push((name, channels)),
            }
        }
        let dense_flops = count(dense, convention).flops;
        Ok(Self { dense, convention, dense_flops, uniform, own })
    }

    /// The smallest rate that leaves a channel in every group.
    fn smallest_rate(&self) -> Result<Fraction, GraphError> {
        let narrowest = self.uniform.iter().map(|(_, channels)| *channels).min();
        narrowest.map(|channels| Fraction { kept: 1, channels }).ok_or(GraphError::NoUniformRate)
    }

    /// All rates from `smallest` to 1 at which some group gains a channel, ascending and distinct.
    fn rates(&self, smallest: Fraction) -> Vec<Fraction> {
        let mut widths: Vec<usize> = self.uniform.iter().map(|(_, channels)| *channels).collect();
        widths.sort_unstable();
        widths.dedup();
        let of_width = |channels| (1..=channels).map(move |kept| Fraction { kept, channels });
        let mut rates: Vec<Fraction> = widths.into_iter().flat_map(of_width).collect();
        rates.retain(|rate| rate.compare(&smallest).is_ge());
        rates.sort_by(Fraction::compare);
        rates.dedup_by(|a, b| a.compare(b).is_eq());
        rates
    }

    /// FLOPs at a rate over those of the dense net. The division is rounded once, so 7 of 10 compares as equal to a target of 0.7.
    fn flops_fraction(&self, rate: Fraction) -> Result<f64, GraphError> {
        let uniform = self.uniform.iter().map(|(name, channels)| ((*name).clone(), rate.of(*channels)));
        let net = at_widths(self.dense, uniform.chain(self.own.iter().cloned()).collect())?;
        let Counts { flops, .. } = count(&net.graph, self.convention);
        Ok(flops as f64 / self.dense_flops as f64)
    }

    /// The decimal number with the fewest digits that leaves the same channels.
    fn decimal(&self, rate: Fraction) -> f64 {
        let is_same = |decimal: &f64| {
            self.uniform
                .iter()
                .all(|(name, channels)| kept_channels(name, *channels, *decimal) == Ok(rate.of(*channels)))
        };
        let rounded_up = |digits| {
            let scale = 10_u64.pow(digits);
            let number = (rate.kept as u128 * u128::from(scale)).div_ceil(rate.channels as u128);
            number as f64 / scale as f64
        };
        let exact = rate.kept as f64 / rate.channels as f64;
        (0..=15).map(rounded_up).find(is_same).unwrap_or(exact)
    }
}

/// The net in which each of these groups keeps so many channels.
///
/// # Errors
/// If a group cannot be pruned, would be left with no channel, or has fewer.
pub fn at_widths(dense: &Graph, kept: Vec<(String, usize)>) -> Result<NarrowNet, GraphError> {
    let mut graph = dense.clone();
    for (name, channels) in &kept {
        graph = with_channels(&graph, name, *channels)?;
    }
    Ok(NarrowNet { kept, graph })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{GraphBuilder, Op};

    /// Convolutions of these widths with kernel 1 on 1×2×2 images, then a linear layer with two outputs; groups `conv0`, `conv1`, …
    fn chain(widths: &[usize], batch_norm: bool) -> (Graph, Vec<String>) {
        let mut net = GraphBuilder::new("chain", [1, 2, 2]).unwrap();
        let mut in_channels = 1;
        for (i, &out_channels) in widths.iter().enumerate() {
            let op =
                Op::Conv { in_channels, out_channels, kernel: 1, stride: 1, padding: 0, bias: !batch_norm };
            net.add(format!("conv{i}"), op).unwrap();
            if batch_norm {
                net.add(format!("bn{i}"), Op::BatchNorm { channels: out_channels, eps: 1e-5, momentum: 0.1 })
                    .unwrap();
            }
            in_channels = out_channels;
        }
        net.add("flat", Op::Flatten {}).unwrap();
        net.add("fc", Op::Linear { in_features: 4 * in_channels, out_features: 2 }).unwrap();
        (net.finish(), (0..widths.len()).map(|i| format!("conv{i}")).collect())
    }

    fn rate(widths: &[usize], own: &[(&str, f64)], target: f64) -> Result<f64, GraphError> {
        let (graph, groups) = chain(widths, false);
        let own = own.iter().map(|(name, rate)| ((*name).to_owned(), *rate)).collect();
        keep_rate_for_flops(&graph, &groups, &own, Convention::Paper, target)
    }

    // Multiply-adds at widths a and b: conv0 4·a, conv1 4·a·b, the linear layer 2·4·b.
    // Widths 4 and 10: 16 + 160 + 80 = 256, 512 FLOPs. The rates at which a width changes, with the FLOPs:
    //   0.25 (1, 2) 4+8+16 = 28     0.3 (1, 3) 4+12+24 = 40      0.4 (1, 4) 4+16+32 = 52
    //   0.5 (2, 5) 8+40+40 = 88     0.6 (2, 6) 8+48+48 = 104     0.7 (2, 7) 8+56+56 = 120
    //   0.75 (3, 7) 12+84+56 = 152  0.8 (3, 8) 12+96+64 = 172    0.9 (3, 9) 12+108+72 = 192
    #[test]
    fn the_largest_rate_within_a_target_is_found() {
        for (target, expected) in [
            (28.0 / 256.0, 0.25),
            (39.9 / 256.0, 0.25),
            (40.0 / 256.0, 0.3),
            (0.25, 0.4),
            (0.5, 0.7),
            // Exactly 104, 152 and 192 of 256.
            (0.40625, 0.6),
            (0.59375, 0.75),
            (0.75, 0.9),
            (0.749, 0.8),
            (0.999, 0.9),
        ] {
            assert_eq!(rate(&[4, 10], &[], target), Ok(expected), "{target}");
        }
    }

    #[test]
    fn a_group_with_a_rate_of_its_own_keeps_it() {
        // conv0 keeps 2 of 4: 8 + 8·b + 8·b of 256 multiply-adds, so b ≤ 7 meets 0.5.
        assert_eq!(rate(&[4, 10], &[("conv0", 0.5)], 0.5), Ok(0.7));
        // conv1 keeps 5 of 10: 4·a + 20·a + 40, so a ≤ 3 meets 0.5.
        assert_eq!(rate(&[4, 10], &[("conv1", 0.5)], 0.5), Ok(0.8));
        // Both: no rate is left to choose.
        let error = rate(&[4, 10], &[("conv0", 0.5), ("conv1", 0.5)], 0.5).unwrap_err();
        assert_eq!(error, GraphError::NoUniformRate);
    }

    #[test]
    fn batch_norms_are_counted_in_the_papers_convention_only() {
        // One group of 10: 4·a + 8·a = 12·a multiply-adds, so FLOPs are 24·a, and 28·a with 4·a of the batch norm.
        let (graph, groups) = chain(&[10], true);
        let find = |convention, target| {
            keep_rate_for_flops(&graph, &groups, &BTreeMap::new(), convention, target).unwrap()
        };
        assert_eq!([Convention::Paper, Convention::AllParameters].map(|c| find(c, 0.7)), [0.7, 0.7]);
        // Two groups of 4 and 10, multiply-adds as above: 512 + 4·14 = 568 FLOPs. At 0.7 they are 240 + 4·9 = 276, more than
        // 0.48 · 568 = 272.64, while 240 is less than 0.48 · 512 = 245.76. At 0.6 they are 208 + 4·8 = 240.
        let (graph, groups) = chain(&[4, 10], true);
        let find =
            |convention| keep_rate_for_flops(&graph, &groups, &BTreeMap::new(), convention, 0.48).unwrap();
        assert_eq!([Convention::Paper, Convention::AllParameters].map(find), [0.6, 0.7]);
    }

    #[test]
    fn a_target_below_the_smallest_net_names_what_can_be_had() {
        // At 0.25 conv0 keeps its last channel: 28 of 256.
        let error = rate(&[4, 10], &[], 0.1).unwrap_err();
        assert_eq!(error, GraphError::FlopsUnreachable { target: 0.1, least: 0.109375, rate: 0.25 });
        assert_eq!(
            error.to_string(),
            "0.1 of the dense net's FLOPs cannot be reached: the least is 0.1094 (rounded up), at keep rate 0.25, which leaves \
             one channel in the narrowest layer"
        );
        // 1 of 7 and 1 of 3: a third is the smallest rate with a channel in both, rounded up to the first that gives 2 and 1.
        let Err(GraphError::FlopsUnreachable { rate, .. }) = rate(&[7, 3], &[], 1e-6) else { panic!() };
        assert_eq!(rate, 0.4);
    }

    #[test]
    fn targets_outside_0_to_1_are_refused() {
        for target in [0.0, -0.5, 1.0, 1.5, f64::NAN, f64::INFINITY] {
            assert!(matches!(rate(&[4, 10], &[], target), Err(GraphError::FlopsTarget(_))), "{target}");
        }
    }

    #[test]
    fn an_unknown_group_is_named() {
        let (graph, _) = chain(&[4], false);
        let groups = ["conv7".to_owned()];
        let find = || keep_rate_for_flops(&graph, &groups, &BTreeMap::new(), Convention::Paper, 0.5);
        assert!(matches!(find(), Err(GraphError::UnknownLayer { layer, .. }) if layer == "conv7"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn flops_stay_within_the_target_and_the_next_step_exceeds_it(
            widths in proptest::collection::vec(1_usize..40, 1..4),
            batch_norm: bool,
            own in proptest::option::of(0.3..1.0),
            target in 0.01..0.999,
        ) {
            let (graph, groups) = chain(&widths, batch_norm);
            let mut own_rates = BTreeMap::new();
            if let Some(rate) = own.filter(|_| widths.len() > 1 && widths[0] > 3) {
                own_rates.insert(groups[0].clone(), rate);
            }
            let convention = Convention::Paper;
            let dense = count(&graph, convention).flops as f64;
            let at = |rate: f64| {
                let net = at_keep_rates(&graph, &groups, |name| own_rates.get(name).copied().unwrap_or(rate))?;
                Ok::<_, GraphError>((count(&net.graph, convention).flops as f64 / dense, net.kept))
            };
            // Every rate at which a width can change, tried one by one.
            let all = widths.iter().flat_map(|&c| (1..=c).map(move |kept| kept as f64 / c as f64));
            let tried: Vec<_> = all.filter_map(|rate| at(rate).ok()).collect();
            match keep_rate_for_flops(&graph, &groups, &own_rates, convention, target) {
                Ok(rate) => {
                    let (got, kept) = at(rate).unwrap();
                    prop_assert!(got <= target && kept.iter().all(|(_, kept)| *kept > 0));
                    for (other, of_other) in tried {
                        prop_assert!(of_other == kept || other < got || other > target, "{other} at {of_other:?}");
                    }
                }
                Err(GraphError::FlopsUnreachable { least, rate, .. }) => {
                    prop_assert!(least > target && at(rate).unwrap().0 == least);
                    prop_assert!(tried.iter().all(|(other, _)| *other >= least));
                }
                Err(error) => prop_assert!(false, "{error}"),
            }
        }
    }
}

//! The contract of a selector, tested on every entry of [`all`].

use rand::RngExt;
use thinet_seed::Seed;

use crate::{
    ActivationStats, BatchNormScales, Evidence, EvidenceKind, Filters, GradientProducts, Moments, Needs,
    Selection, Selector, SelectorError, ZeroCounts, all, find, importances, register,
};

const CHANNELS: usize = 9;

/// Evidence of every kind, made of `filters: [channels, len]`, zero counts and `x: [m, channels]`. A channel's scale is its
/// first weight's magnitude, and its activation is 1 where it is not zero.
fn evidence(channels: usize, filters: Vec<f32>, zeros: Vec<u64>, total: u64, x: &[f64]) -> Evidence {
    let len = filters.len() / channels;
    let active: Vec<f64> = zeros.iter().map(|&zeros| (total - zeros) as f64 / total as f64).collect();
    Evidence {
        batch_norm_scales: Some(BatchNormScales {
            scales: filters.chunks_exact(len).map(|filter| filter[0].abs()).collect(),
        }),
        filters: Some(Filters { channels, len, values: filters }),
        zeros: Some(ZeroCounts { zeros, total }),
        gradients: Some(GradientProducts {
            taylor: active.iter().map(|&mean| -mean).collect(),
            taylor_abs: active.clone(),
            images: 3,
        }),
        activations: Some(ActivationStats {
            max: active.iter().map(|&mean| f64::from(mean > 0.0)).collect(),
            mean_abs: active.clone(),
            mean: active,
            total,
        }),
        moments: Some(Moments::from_rows(channels, x).unwrap()),
        ..Evidence::none("conv2_1", channels)
    }
}

/// Evidence without ties, as in a real layer.
fn random_evidence(channels: usize) -> Evidence {
    let mut rng = Seed::root(7).child("contract").rng();
    let filters = (0..channels * 12).map(|_| rng.random_range(-1.0..1.0)).collect();
    let zeros = (0..channels).map(|_| rng.random_range(0..1000)).collect();
    let x: Vec<f64> = (0..channels * 60).map(|_| rng.random_range(-0.5..1.0)).collect();
    evidence(channels, filters, zeros, 1000, &x)
}

/// Random evidence in which `channel` is worst by any measure: no weights, always zero, no contribution.
fn evidence_with_worst(channel: usize) -> Evidence {
    let mut evidence = random_evidence(CHANNELS);
    let filters = evidence.filters.as_mut().unwrap();
    filters.values[channel * filters.len..(channel + 1) * filters.len].fill(0.0);
    evidence.batch_norm_scales.as_mut().unwrap().scales[channel] = 0.0;
    evidence.zeros.as_mut().unwrap().zeros[channel] = 1000;
    let activations = evidence.activations.as_mut().unwrap();
    for values in [&mut activations.mean, &mut activations.mean_abs, &mut activations.max] {
        values[channel] = 0.0;
    }
    let gradients = evidence.gradients.as_mut().unwrap();
    (gradients.taylor[channel], gradients.taylor_abs[channel]) = (0.0, 0.0);
    let moments = evidence.moments.take().unwrap();
    let dead = |i: usize, j: usize| i == channel || j == channel;
    let gram = (0..CHANNELS * CHANNELS)
        .map(|at| (at / CHANNELS, at % CHANNELS))
        .map(|(i, j)| if dead(i, j) { 0.0 } else { moments.g(i, j) });
    evidence.moments = Some(Moments::new(CHANNELS, moments.rows(), gram.collect()).unwrap());
    evidence
}

fn run(selector: &dyn Selector, evidence: &Evidence, keep: usize) -> Selection {
    let selection = selector
        .select(evidence, keep, Seed::root(3))
        .unwrap_or_else(|error| panic!("{}: {error}", selector.name()));
    check_shape(selector, evidence, keep, &selection);
    selection
}

/// Exactly `keep`, ascending and in range (both by type), the rest in the removal order, finite scores.
fn check_shape(selector: &dyn Selector, evidence: &Evidence, keep: usize, selection: &Selection) {
    let name = selector.name();
    assert_eq!(selection.kept.len(), keep, "{name}");
    assert_eq!(selection.kept.width(), evidence.channels, "{name}");
    let mut removed = selection.removed.clone();
    removed.sort_unstable();
    assert_eq!(removed, selection.kept.removed(), "{name}");
    assert_eq!(selection.scores.len(), evidence.channels, "{name}");
    assert!(selection.scores.iter().all(|score| score.is_finite()), "{name}: {:?}", selection.scores);
}

/// An empty registry would pass every other test of this file.
#[test]
fn the_methods_of_the_papers_comparison_are_registered() {
    let names: Vec<&str> = all().iter().map(|selector| selector.name()).collect();
    for name in ["thinet", "thinet-omp", "apoz", "weight-sum-l1", "weight-sum-l2", "random"] {
        assert!(names.contains(&name), "{name} is not among {names:?}");
    }
}

#[test]
fn names_are_distinct_kebab_case_and_found() {
    for (place, selector) in all().iter().enumerate() {
        let name = selector.name();
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'), "{name}");
        assert!(all()[..place].iter().all(|other| other.name() != name), "{name} is registered twice");
        assert!(!selector.about().is_empty() && !selector.about().contains('\n'), "{name}");
        assert_eq!(find(name).unwrap().name(), name);
    }
}

#[test]
fn every_keep_count_gives_exactly_that_many() {
    for channels in [1, 2, CHANNELS, 40] {
        let evidence = random_evidence(channels);
        for selector in &all() {
            for keep in 1..=channels {
                run(*selector, &evidence, keep);
            }
        }
    }
}

#[test]
fn keeping_all_is_the_identity() {
    for selector in &all() {
        let selection = run(*selector, &random_evidence(CHANNELS), CHANNELS);
        assert!(selection.kept.is_all() && selection.removed.is_empty(), "{}", selector.name());
    }
}

#[test]
fn same_evidence_and_seed_give_the_same_answer_and_leave_the_evidence_alone() {
    let evidence = random_evidence(CHANNELS);
    let untouched = evidence.clone();
    for selector in &all() {
        let first = run(*selector, &evidence, 4);
        assert_eq!(first, run(*selector, &evidence, 4), "{}", selector.name());
        assert_eq!(evidence, untouched, "{}", selector.name());
    }
}

#[test]
fn only_data_blind_selectors_draw_from_the_seed() {
    let evidence = random_evidence(CHANNELS);
    for selector in all().iter().filter(|selector| !selector.needs().is_empty()) {
        let first = selector.select(&evidence, 4, Seed::root(0)).unwrap();
        let second = selector.select(&evidence, 4, Seed::root(1)).unwrap();
        assert_eq!(first, second, "{}", selector.name());
    }
}

#[test]
fn what_a_selector_needs_is_enough() {
    let evidence = random_evidence(CHANNELS);
    for selector in &all() {
        let alone = run(*selector, &evidence.only(selector.needs()), 4);
        assert_eq!(alone, run(*selector, &evidence, 4), "{}", selector.name());
        let handed = crate::select(*selector, &evidence, 4, Seed::root(3)).unwrap();
        assert_eq!(alone, handed, "{}", selector.name());
    }
}

/// Reads one kind of evidence and names another as its need.
struct OverReaching(EvidenceKind);

impl Selector for OverReaching {
    fn name(&self) -> &'static str {
        "over-reaching"
    }

    fn about(&self) -> &'static str {
        "reads what it does not need"
    }

    fn needs(&self) -> Needs {
        let all = EvidenceKind::ALL.into_iter().fold(Needs::NONE, |needs, kind| needs | Needs::only(kind));
        all.without(self.0)
    }

    fn select(&self, evidence: &Evidence, keep: usize, _seed: Seed) -> Result<Selection, SelectorError> {
        let name = self.name();
        match self.0 {
            EvidenceKind::Filters => evidence.filters_for(name).map(|_| ()),
            EvidenceKind::BatchNormScales => evidence.batch_norm_scales_for(name).map(|_| ()),
            EvidenceKind::Zeros => evidence.zeros_for(name).map(|_| ()),
            EvidenceKind::Activations => evidence.activations_for(name).map(|_| ()),
            EvidenceKind::Moments => evidence.moments_for(name).map(|_| ()),
            EvidenceKind::Gradients => evidence.gradients_for(name).map(|_| ()),
        }?;
        Selection::from_order(name, evidence, keep, (0..CHANNELS).collect(), vec![0.0; CHANNELS])
    }
}

#[test]
fn reading_more_than_is_needed_is_an_error_that_names_the_kind() {
    let evidence = random_evidence(CHANNELS);
    for kind in EvidenceKind::ALL {
        let selector = OverReaching(kind);
        assert!(selector.select(&evidence, 4, Seed::root(0)).is_ok());
        let error = crate::select(&selector, &evidence, 4, Seed::root(0)).unwrap_err().to_string();
        let expected = format!(
            "selector \"over-reaching\" reads {} of layer \"conv2_1\", which it was not handed: a selector gets the \
             kinds of evidence that its `needs` name",
            kind.name()
        );
        assert_eq!(error, expected);
    }
}

#[test]
fn missing_evidence_is_named() {
    let evidence = random_evidence(CHANNELS);
    for selector in &all() {
        for kind in selector.needs().kinds() {
            let without = evidence.only(selector.needs().without(kind));
            let error = selector.select(&without, 4, Seed::root(0)).unwrap_err();
            let expected = SelectorError::MissingEvidence {
                selector: selector.name(),
                layer: "conv2_1".to_owned(),
                missing: kind.name(),
            };
            assert_eq!(error, expected);
        }
    }
}

#[test]
fn evidence_of_another_width_is_refused() {
    let mut evidence = random_evidence(CHANNELS);
    evidence.channels = CHANNELS + 1;
    for selector in all().iter().filter(|selector| !selector.needs().is_empty()) {
        let error = selector.select(&evidence, 4, Seed::root(0)).unwrap_err();
        assert!(matches!(error, SelectorError::BadEvidence { .. }), "{}: {error}", selector.name());
    }
}

#[test]
fn weights_that_are_not_finite_are_refused_and_the_layer_is_named() {
    for selector in all().iter().filter(|selector| selector.needs().contains(EvidenceKind::Filters)) {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut evidence = random_evidence(CHANNELS);
            evidence.filters.as_mut().unwrap().values[30] = bad;
            let error = selector.select(&evidence, 4, Seed::root(0)).unwrap_err().to_string();
            assert!(error.contains(selector.name()) && error.contains("conv2_1"), "{error}");
            assert!(error.contains("in filter 2"), "{error}");
        }
    }
}

#[test]
fn impossible_keep_counts_are_refused() {
    let evidence = random_evidence(CHANNELS);
    for selector in &all() {
        for keep in [0, CHANNELS + 1, usize::MAX] {
            let error = selector.select(&evidence, keep, Seed::root(0)).unwrap_err();
            assert!(matches!(error, SelectorError::Keep { .. }), "{}: {error}", selector.name());
        }
    }
}

#[test]
fn the_planted_worst_channel_is_removed_first() {
    for selector in all().iter().filter(|selector| !selector.needs().is_empty()) {
        for worst in 0..CHANNELS {
            let selection = run(*selector, &evidence_with_worst(worst), 4);
            assert_eq!(selection.removed[0], worst, "{}", selector.name());
        }
    }
}

/// The registered selectors that add channels, one after the other; every other one removes them.
const ADDING: [&str; 1] = ["thinet-omp"];

/// Whether a selection of equal channels (ascending) went by the lowest index: removed first by a selector that removes, added
/// first, and so removed last, by one that adds.
fn goes_by_lowest_index(is_adding: bool, selection: &Selection, equals: &[usize]) -> bool {
    let of_equals = |channel: &usize| equals.contains(channel);
    let removed: Vec<usize> = selection.removed.iter().copied().filter(of_equals).collect();
    let kept = equals.len() - removed.len();
    match is_adding {
        false => removed == equals[..removed.len()],
        true => removed.iter().rev().eq(&equals[kept..]),
    }
}

/// Evidence with the channels that are equal in it: all channels are, or some among others that are not.
fn with_equals() -> Vec<(Evidence, Vec<usize>)> {
    let ones = evidence(4, vec![0.5; 8], vec![3; 4], 6, &[1.0; 12]);
    let all_zero = evidence(4, vec![0.0; 8], vec![6; 4], 6, &[0.0; 12]);
    let orthogonal: Vec<f64> = (0..16).map(|at| f64::from(at / 4 == at % 4)).collect();
    let orthogonal = evidence(4, vec![0.5; 8], vec![3; 4], 6, &orthogonal);
    let mut all: Vec<_> = [ones, all_zero, orthogonal].map(|evidence| (evidence, vec![0, 1, 2, 3])).into();
    for equals in [vec![1, 4, 6], vec![0, 8], vec![2, 3, 5, 7]] {
        all.push((with_planted_equals(&equals), equals));
    }
    all
}

/// Evidence in which the channels of `equals` cannot be distinguished by any measure, and no other ones can. They are
/// no multiples of each other: each has a row of its own. Contributions are whole numbers, so that sums are exact.
fn with_planted_equals(equals: &[usize]) -> Evidence {
    let mut rng = Seed::root(8).child("equals").rng();
    let first = |channel: usize| if equals.contains(&channel) { equals[0] } else { channel };
    let drawn: Vec<f32> = (0..CHANNELS * 12).map(|_| rng.random_range(-1.0..1.0)).collect();
    let filters = (0..CHANNELS * 12).map(|at| drawn[first(at / 12) * 12 + at % 12]).collect();
    let zeros = (0..CHANNELS).map(|channel| 50 + 70 * first(channel) as u64).collect();
    let mut x = Vec::new();
    for _ in 0..60 {
        let row: Vec<f64> = (0..CHANNELS).map(|_| f64::from(rng.random_range(-3..=3))).collect();
        x.extend((0..CHANNELS).map(|channel| row[first(channel)]));
    }
    for &own in equals {
        x.extend((0..CHANNELS).map(|channel| if channel == own { 5.0 } else { 0.0 }));
    }
    evidence(CHANNELS, filters, zeros, 1000, &x)
}

#[test]
fn equals_go_by_the_lowest_index() {
    for selector in all().iter().filter(|selector| !selector.needs().is_empty()) {
        let name = selector.name();
        let is_adding = ADDING.contains(&name);
        for (evidence, equals) in with_equals() {
            for keep in 1..=evidence.channels {
                let selection = run(*selector, &evidence, keep);
                assert!(
                    goes_by_lowest_index(is_adding, &selection, &equals),
                    "{name} removes {:?}, of which {equals:?} are equal; one that adds channels belongs in ADDING",
                    selection.removed
                );
            }
        }
    }
}

/// Goes by batch-norm scales, removing or adding, and among equals by the lowest or the highest index.
struct ByScale {
    is_adding: bool,
    by_lowest: bool,
}

impl Selector for ByScale {
    fn name(&self) -> &'static str {
        "by-scale"
    }

    fn about(&self) -> &'static str {
        "goes by batch-norm scales"
    }

    fn needs(&self) -> Needs {
        Needs::BATCH_NORM_SCALES
    }

    fn select(&self, evidence: &Evidence, keep: usize, _seed: Seed) -> Result<Selection, SelectorError> {
        let scales = &evidence.batch_norm_scales_for(self.name())?.scales;
        // The stable sort leaves equals in the order in which they are taken.
        let mut order: Vec<usize> = (0..scales.len()).collect();
        if !self.by_lowest {
            order.reverse();
        }
        match self.is_adding {
            false => order.sort_by(|&a, &b| scales[a].total_cmp(&scales[b])),
            true => {
                order.sort_by(|&a, &b| scales[b].total_cmp(&scales[a]));
                order.reverse();
            }
        }
        let scores = scales.iter().copied().map(f64::from).collect();
        Selection::from_order(self.name(), evidence, keep, order, scores)
    }
}

#[test]
fn equals_that_go_by_the_highest_index_are_noticed_in_every_evidence() {
    for is_adding in [false, true] {
        for (evidence, equals) in with_equals() {
            let holds = |by_lowest| {
                let selector = ByScale { is_adding, by_lowest };
                let mut keeps = 1..=evidence.channels;
                keeps.all(|keep| goes_by_lowest_index(is_adding, &run(&selector, &evidence, keep), &equals))
            };
            assert!(holds(true), "adding: {is_adding}, {equals:?}");
            assert!(!holds(false), "adding: {is_adding}, {equals:?}");
        }
    }
}

#[test]
fn dead_duplicate_and_dependent_channels_are_ranked() {
    // Channels 0 and 3 are dead, 1 and 2 are the same, 5 = 1 + 4; there are fewer rows than channels.
    let x = [0.0, 1.0, 1.0, 0.0, 2.0, 3.0, 0.0, 0.5, 0.5, 0.0, -1.0, -0.5, 0.0, 0.1, 0.1, 0.0, 0.3, 0.4];
    let filters = vec![0.0, 1.0, 1.0, 0.0, -2.0, 1.0];
    let evidence = evidence(6, filters, vec![9, 4, 4, 9, 1, 2], 9, &x);
    for selector in &all() {
        for keep in 1..=6 {
            run(*selector, &evidence, keep);
        }
    }
}

/// The registered selectors by which a channel can be kept at a small keep count and removed at a larger one.
const NOT_NESTED: [&str; 1] = ["lasso"];

#[test]
fn a_smaller_keep_count_continues_the_same_removal_order() {
    let evidence = random_evidence(CHANNELS);
    for selector in all().into_iter().filter(|selector| !NOT_NESTED.contains(&selector.name())) {
        let order = run(selector, &evidence, 1).removed;
        for keep in 1..=CHANNELS {
            let removed = run(selector, &evidence, keep).removed;
            assert_eq!(removed, order[..CHANNELS - keep], "{}", selector.name());
        }
    }
}

#[test]
fn importances_rank_the_channels_of_a_layer_as_the_selector_does() {
    let mut layers = with_equals();
    layers.push((random_evidence(40), Vec::new()));
    for selector in all().into_iter().filter(|selector| selector.importance().is_some()) {
        let name = selector.name();
        for (evidence, _) in &layers {
            let importances = importances(selector, evidence, Seed::root(3)).unwrap();
            let mut order: Vec<usize> = (0..evidence.channels).collect();
            order.sort_by(|&a, &b| importances[a].total_cmp(&importances[b]));
            order.pop();
            let least = run(selector, evidence, 1);
            assert_eq!(least.removed, order, "{name}");
            assert_eq!(least.scores, run(selector, evidence, evidence.channels).scores, "{name}");
        }
    }
    let error = importances(find("thinet").unwrap(), &layers[0].0, Seed::root(0)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "selector \"thinet\" gives an order of the channels of a layer and no scores that could be compared between layers; \
         selectors with scores: apoz, activation-mean, taylor, weight-sum-l1, weight-sum-l2, fpgm, bn-scale, random"
    );
}

#[test]
fn an_unknown_name_is_answered_with_the_nearest_and_all_names() {
    let error = |name| find(name).map(Selector::name).unwrap_err().to_string();
    assert!(
        error("thinnet")
            .starts_with("there is no selector \"thinnet\", did you mean \"thinet\"?; selectors: ")
    );
    assert!(error("entropy").starts_with("there is no selector \"entropy\"; selectors: "));
    for (typed, meant) in [("apos", "apoz"), ("weigt-sm-l1", "weight-sum-l1"), ("rndm", "random")] {
        assert!(error(typed).contains(&format!("did you mean {meant:?}?")), "{}", error(typed));
    }
    assert!(!error("abc").contains("did you mean"), "{}", error("abc"));
    assert!(all().iter().all(|selector| error("entropy").contains(selector.name())));
}

#[test]
fn selectors_of_another_package_need_names_of_their_own() {
    // Nothing is registered where a name is taken, so the other tests see the workspace's selectors alone.
    let refused = |others| register(others).unwrap_err().to_string();
    assert_eq!(
        refused(&[&crate::apoz::Apoz]),
        "there is a selector \"apoz\" already; give yours another name"
    );
    struct Mine;
    impl Selector for Mine {
        fn name(&self) -> &'static str {
            "mine"
        }
        fn about(&self) -> &'static str {
            "a test"
        }
        fn needs(&self) -> Needs {
            Needs::NONE
        }
        fn select(&self, evidence: &Evidence, keep: usize, _: Seed) -> Result<Selection, SelectorError> {
            let order = (0..evidence.channels).collect();
            Selection::from_order("mine", evidence, keep, order, vec![0.0; evidence.channels])
        }
    }
    assert!(refused(&[&Mine, &Mine]).starts_with("there is a selector \"mine\" already"));
    assert!(find("mine").is_err());
}

//! The contract of a reconstructor, tested on every entry of [`all`].

use thinet_graph::ChannelSet;
use thinet_selectors::Moments;

use crate::{KernelRefit, Patches, Reconstructor, RefitError, RefitInput, all, find, reconstruction_error};

/// Six rows of five channels: correlated, none dead.
const X: [f64; 30] = [
    1.0, 0.5, 0.2, -0.3, 0.9, 0.7, 0.8, 0.1, 0.4, 0.3, -0.2, 0.6, 1.1, 0.5, 0.2, 0.4, -0.1, 0.3, 0.8, 0.6,
    0.9, 0.2, 0.7, 0.1, -0.4, 0.3, 1.0, 0.4, 0.6, 0.5,
];

fn moments(x: &[f64]) -> Moments {
    Moments::from_rows(5, x).unwrap()
}

/// Every proper and improper subset of five channels but the empty one.
fn subsets() -> impl Iterator<Item = ChannelSet> {
    (1..32_u32).map(|bits| ChannelSet::new(5, (0..5).filter(|j| bits >> j & 1 == 1).collect()).unwrap())
}

/// The reconstructors that give factors.
fn scaling() -> impl Iterator<Item = &'static dyn Reconstructor> {
    all().iter().copied().filter(|reconstructor| reconstructor.reads() != RefitInput::Patches)
}

/// Those that give weights.
fn refitting() -> impl Iterator<Item = &'static dyn Reconstructor> {
    all().iter().copied().filter(|reconstructor| reconstructor.reads() == RefitInput::Patches)
}

/// An empty registry would pass every other test of this file.
#[test]
fn the_papers_reconstructions_are_registered() {
    let names: Vec<&str> = all().iter().map(|reconstructor| reconstructor.name()).collect();
    for name in ["none", "channel-scale", "full-kernel"] {
        assert!(names.contains(&name), "{name} is not among {names:?}");
    }
}

#[test]
fn names_are_distinct_kebab_case_and_found() {
    for (place, reconstructor) in all().iter().enumerate() {
        let name = reconstructor.name();
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'), "{name}");
        assert!(all()[..place].iter().all(|other| other.name() != name), "{name} is registered twice");
        assert!(!reconstructor.about().is_empty() && !reconstructor.about().contains('\n'), "{name}");
        assert_eq!(find(name).unwrap().name(), name);
    }
}

#[test]
fn one_finite_scale_per_kept_channel_and_no_larger_error_than_without() {
    // Dead (3), duplicate (4 = 0) and dependent (2 = 0 + 1) channels beside a plain problem.
    let mut hard = X;
    for row in hard.chunks_exact_mut(5) {
        row[2] = row[0] + row[1];
        row[3] = 0.0;
        row[4] = row[0];
    }
    for x in [X, hard] {
        let moments = moments(&x);
        for reconstructor in scaling() {
            for kept in subsets() {
                let scale = reconstructor.refit(Some(&moments), &kept).unwrap();
                assert_eq!(scale.len(), kept.len(), "{}", reconstructor.name());
                assert!(scale.iter().all(|w| w.is_finite()), "{}: {scale:?}", reconstructor.name());
                let error = reconstruction_error(&moments, &kept, &scale);
                assert!(error.after <= error.before + 1e-9, "{}: {error:?}", reconstructor.name());
                assert_eq!(scale, reconstructor.refit(Some(&moments), &kept).unwrap());
            }
        }
    }
}

#[test]
fn all_kept_or_all_zero_gives_ones() {
    for reconstructor in scaling() {
        let every = ChannelSet::all(5).unwrap();
        assert_eq!(reconstructor.refit(Some(&moments(&X)), &every).unwrap(), [1.0; 5]);
        for kept in subsets() {
            let scale = reconstructor.refit(Some(&moments(&[0.0; 30])), &kept).unwrap();
            assert_eq!(scale, vec![1.0; kept.len()], "{}", reconstructor.name());
        }
    }
}

#[test]
fn moments_are_read_exactly_where_needed() {
    let kept = ChannelSet::new(5, vec![0, 3]).unwrap();
    for reconstructor in scaling() {
        let without = reconstructor.refit(None, &kept);
        if reconstructor.reads() == RefitInput::Contributions {
            assert_eq!(without, Err(RefitError::MissingMoments { reconstructor: reconstructor.name() }));
            let other = Moments::from_rows(6, &X).unwrap();
            let error = reconstructor.refit(Some(&other), &kept).unwrap_err();
            assert!(matches!(error, RefitError::ChannelMismatch { expected: 5, found: 6, .. }), "{error}");
        } else {
            assert_eq!(without, reconstructor.refit(Some(&moments(&X)), &kept));
        }
    }
}

#[test]
fn weights_of_whole_kernels_are_finite_and_no_worse_than_without() {
    // Two filters of the five channels, one tap each; and the same products with a dead and a repeated channel.
    let weights = [0.5, -1.0, 0.25, 2.0, 0.75, 1.0, 0.0, -0.5, 0.5, 1.5];
    let mut hard = X;
    for row in hard.chunks_exact_mut(5) {
        (row[3], row[4]) = (0.0, row[0]);
    }
    for reconstructor in refitting() {
        for moments in [moments(&X), moments(&hard)] {
            let patches = Patches { moments: &moments, taps: 1, weights: &weights };
            for kept in subsets() {
                let refit = reconstructor.refit_kernels(&patches, &kept).unwrap();
                assert_eq!(refit.weights.len(), 2 * kept.len(), "{}", reconstructor.name());
                assert!(refit.weights.iter().all(|v| v.is_finite()), "{refit:?}");
                let error = KernelRefit::error(std::slice::from_ref(&refit));
                assert!(error.after <= error.before + 1e-7, "{}: {error:?}", reconstructor.name());
                assert_eq!(refit, reconstructor.refit_kernels(&patches, &kept).unwrap());
            }
        }
    }
}

#[test]
fn each_reconstructor_refuses_what_it_is_not_computed_from() {
    let (kept, moments) = (ChannelSet::new(5, vec![0, 3]).unwrap(), moments(&X));
    for reconstructor in refitting() {
        let refused = reconstructor.refit(Some(&moments), &kept);
        assert!(matches!(refused, Err(RefitError::OtherInput { .. })), "{}", reconstructor.name());
    }
    for reconstructor in scaling() {
        let patches = Patches { moments: &moments, taps: 1, weights: &[1.0; 5] };
        let refused = reconstructor.refit_kernels(&patches, &kept);
        assert!(matches!(refused, Err(RefitError::OtherInput { .. })), "{}", reconstructor.name());
    }
}

#[test]
fn an_unknown_name_is_answered_with_the_nearest_and_all_names() {
    let error = |name| find(name).map(Reconstructor::name).unwrap_err().to_string();
    assert_eq!(
        error("chanel-scale"),
        "there is no reconstruction \"chanel-scale\", did you mean \"channel-scale\"?; reconstructions: none, channel-scale, full-kernel"
    );
    for (typed, meant) in [("nonw", "none"), ("chnl-scle", "channel-scale")] {
        assert!(error(typed).contains(&format!("did you mean {meant:?}?")), "{}", error(typed));
    }
    assert_eq!(
        error("lasso"),
        "there is no reconstruction \"lasso\"; reconstructions: none, channel-scale, full-kernel"
    );
}

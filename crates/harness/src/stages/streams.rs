//! The random streams of a study's stages, made here and nowhere else. The docs of `thinet-seed` list the whole tree of names.

use thinet_seed::Seed;

/// The dense net of a root seed: see [`starting_weights`] and [`training`].
pub(crate) fn dense(root: u64) -> Seed {
    Seed::root(root).child("dense")
}

/// The control from a random start: see [`starting_weights`] and [`training`].
pub(crate) fn from_scratch(root: u64) -> Seed {
    Seed::root(root).child("from-scratch")
}

/// The starting weights of a net, given the net's own stream.
pub(crate) fn starting_weights(net: Seed) -> Seed {
    net.child("init")
}

/// The training of a net from its start, given the net's own stream.
pub(crate) fn training(net: Seed) -> Seed {
    net.child("train")
}

/// The one calibration of all layers in one-shot mode, with this draw of its sample. The first draw has the stream of studies that
/// name none.
pub(crate) fn calibration(root: u64, draw: u64) -> Seed {
    let first = Seed::root(root).child("calibration");
    if draw == 0 { first } else { first.index(draw) }
}

/// The calibration of one layer in layer-by-layer mode.
pub(crate) fn layer_calibration(root: u64, draw: u64, layer: &str) -> Seed {
    calibration(root, draw).child(layer)
}

/// A selector's choice in a layer.
pub(crate) fn selection(root: u64, layer: &str) -> Seed {
    Seed::root(root).child("select").child(layer)
}

/// A tuning of a cell by the name of its checkpoints: that of the layer before it, or of the long one.
pub(crate) fn tuning(root: u64, name: &str) -> Seed {
    Seed::root(root).child("tune").child(name)
}

/// The images of a calibration.
pub(crate) fn images(calibration: Seed) -> Seed {
    calibration.child("images")
}

/// The positions of a calibration, in any image.
pub(crate) fn positions(calibration: Seed) -> Seed {
    calibration.child("positions")
}

/// The order of the images in a training, in any epoch.
pub(crate) fn order(training: Seed) -> Seed {
    training.child("order")
}

/// The crops and mirrorings of a training, in any epoch.
pub(crate) fn augmentation(training: Seed) -> Seed {
    training.child("augment")
}

/// Libtorch's own generator in a training (dropout), in any epoch.
pub(crate) fn torch(training: Seed) -> Seed {
    training.child("torch")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_have_the_paths_that_stored_results_were_drawn_from() {
        let path = |names: &[&str]| names.iter().fold(Seed::root(3), |seed, name| seed.child(name));
        for (stream, names) in [
            (starting_weights(dense(3)), &["dense", "init"][..]),
            (training(dense(3)), &["dense", "train"]),
            (starting_weights(from_scratch(3)), &["from-scratch", "init"]),
            (training(from_scratch(3)), &["from-scratch", "train"]),
            (calibration(3, 0), &["calibration"]),
            (layer_calibration(3, 0, "conv1"), &["calibration", "conv1"]),
            (selection(3, "conv1"), &["select", "conv1"]),
            (tuning(3, "last"), &["tune", "last"]),
            (images(calibration(3, 0)), &["calibration", "images"]),
            (positions(layer_calibration(3, 0, "conv1")), &["calibration", "conv1", "positions"]),
            (order(tuning(3, "last")), &["tune", "last", "order"]),
            (augmentation(tuning(3, "last")), &["tune", "last", "augment"]),
            (torch(tuning(3, "last")), &["tune", "last", "torch"]),
        ] {
            assert_eq!(stream, path(names), "{names:?}");
        }
    }

    #[test]
    fn each_draw_of_a_sample_has_a_stream_of_its_own() {
        let draws = [0, 1, 2].map(|draw| calibration(3, draw));
        assert_eq!(draws[1], Seed::root(3).child("calibration").index(1));
        assert!(draws[0] != draws[1] && draws[1] != draws[2] && draws[0] != draws[2]);
        assert_eq!(layer_calibration(3, 2, "conv1"), draws[2].child("conv1"));
    }
}

//! The outputs of the next layer sampled in an image (Luo et al. 2017: 10, each at its own filter and place).

use rand::RngExt;
use thinet_seed::Seed;

use crate::window::Window;

/// One output of the next layer: the value of filter `filter` at `output`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instance {
    /// d, of D filters.
    pub(crate) filter: usize,
    /// Row and column (p, q) of the output.
    pub(crate) output: [usize; 2],
}

/// How instances are drawn for one layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Positions {
    /// Instances in an image.
    pub(crate) count: usize,
    /// The layer's point in the tree of seeds.
    pub(crate) seed: Seed,
}

impl Positions {
    /// Draws the instances in an image, with replacement, from the image's own stream: they depend neither on the other
    /// images nor on their order. `image` is its index in the data set.
    pub(crate) fn draw(&self, window: &Window, image: usize) -> Vec<Instance> {
        let mut rng = self.seed.index(image as u64).rng();
        let mut draw = || {
            let filter = rng.random_range(0..window.filters);
            Instance { filter, output: window.output.map(|size| rng.random_range(0..size)) }
        };
        (0..self.count).map(|_| draw()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Window = Window {
        channels: 2,
        filters: 3,
        kernel: [3, 3],
        stride: 1,
        padding: 1,
        map: [2, 4],
        output: [2, 4],
    };

    #[test]
    fn all_filters_and_positions_are_drawn_and_no_others() {
        let drawn = Positions { count: 2000, seed: Seed::root(0) }.draw(&WINDOW, 5);
        let mut seen = [0; 3 * 2 * 4];
        for Instance { filter, output: [row, column] } in drawn {
            assert!(row < 2 && column < 4);
            seen[(filter * 2 + row) * 4 + column] += 1;
        }
        // 2000 draws over 24 outcomes: 83 expected, standard deviation 9.
        assert!(seen.iter().all(|&times| (40..130).contains(&times)), "{seen:?}");
    }

    #[test]
    fn draws_are_pinned_so_that_stored_results_keep_their_meaning() {
        let window = Window { filters: 512, output: [14, 28], ..WINDOW };
        let drawn = Positions { count: 4, seed: Seed::root(1).child("positions") }.draw(&window, 1234);
        let drawn: Vec<_> = drawn.iter().map(|instance| (instance.filter, instance.output)).collect();
        assert_eq!(drawn, [(162, [7, 2]), (439, [2, 21]), (353, [6, 8]), (307, [12, 18])]);
    }

    #[test]
    fn an_image_has_its_own_stream_and_fewer_draws_are_a_prefix() {
        let draw = |count, image| Positions { count, seed: Seed::root(0) }.draw(&WINDOW, image);
        assert_eq!(draw(4, 7), draw(10, 7)[..4]);
        assert_ne!(draw(10, 7), draw(10, 8));
    }
}

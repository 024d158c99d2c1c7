//! Draws from a seed's stream: whole numbers and shuffled orders. Written out here, not taken from the random-number
//! crate, so that its next version cannot change an order that stored results depend on.

use rand::Rng;
use thinet_seed::Seed;

/// A uniform number in `0..n` (`n` > 0): the high half of a 64×64-bit product, redrawn where it would be biased
/// (Lemire 2019, "Fast random integer generation in an interval").
pub(crate) fn below(rng: &mut impl Rng, n: usize) -> usize {
    let n = n as u64;
    let biased = n.wrapping_neg() % n;
    loop {
        let product = u128::from(rng.next_u64()) * u128::from(n);
        if product as u64 >= biased {
            return (product >> 64) as usize;
        }
    }
}

/// The numbers `0..n` in an order drawn from the seed (Fisher–Yates, from the last place down).
#[must_use]
pub fn shuffled(n: usize, seed: Seed) -> Vec<usize> {
    let mut rng = seed.rng();
    let mut order: Vec<usize> = (0..n).collect();
    for last in (1..n).rev() {
        order.swap(last, below(&mut rng, last + 1));
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_order_is_pinned_so_that_stored_results_keep_their_meaning() {
        assert_eq!(shuffled(8, Seed::root(1).child("shuffle")), [4, 3, 1, 2, 6, 5, 0, 7]);
    }

    #[test]
    fn an_order_holds_every_number_once_and_follows_the_seed() {
        for n in [0, 1, 2, 100] {
            let mut order = shuffled(n, Seed::root(7));
            order.sort_unstable();
            assert_eq!(order, (0..n).collect::<Vec<_>>());
        }
        assert_ne!(shuffled(100, Seed::root(7)), shuffled(100, Seed::root(8)));
    }

    #[test]
    fn numbers_below_n_are_even() {
        let mut rng = Seed::root(3).rng();
        let mut counts = [0u32; 5];
        for _ in 0..50_000 {
            counts[below(&mut rng, 5)] += 1;
        }
        // 10,000 expected, standard deviation 89.
        assert!(counts.iter().all(|count| count.abs_diff(10_000) < 450), "{counts:?}");
        assert_eq!(below(&mut rng, 1), 0);
    }
}

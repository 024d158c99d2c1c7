//! Draws from a seed's stream: whole numbers and shuffled orders. Implemented here and not
//! taken from the random-number crate, so that its next version cannot change an order that stored results depend on.

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
    fn the_start_of_a_whole_set_is_pinned() {
        assert_eq!(
            shuffled(60_000, Seed::root(1).child("order").index(3))[..6],
            [51925, 19272, 25147, 602, 44007, 53636]
        );
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

    /// Returns the given numbers, one after the other.
    struct FixedDraws<'a>(std::slice::Iter<'a, u64>);

    impl rand::TryRng for FixedDraws<'_> {
        type Error = std::convert::Infallible;

        fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
            unreachable!("draws take 64 bits")
        }

        fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
            Ok(*self.0.next().expect("fewer draws"))
        }

        fn try_fill_bytes(&mut self, _: &mut [u8]) -> Result<(), Self::Error> {
            unreachable!("draws take 64 bits")
        }
    }

    #[test]
    fn a_draw_is_the_high_half_of_the_product_and_redrawn_exactly_where_it_would_be_biased() {
        let draw = |n, numbers: &[u64]| {
            let mut rng = FixedDraws(numbers.iter());
            (below(&mut rng, n), rng.0.len())
        };
        // 2⁶⁴ = 4 mod 6, so low halves 0 to 3 are redrawn: 6·0 has 0, and 6·x with x = ⌈2⁶⁴/6⌉ has 2.
        let sixth = u64::MAX / 6 + 1;
        assert_eq!(draw(6, &[0, sixth, 1, 7]), (0, 1));
        assert_eq!(draw(6, &[sixth + 1, 7]), (1, 1));
        assert_eq!(draw(6, &[u64::MAX, 7]), (5, 1));
        // A power of two divides 2⁶⁴: nothing is redrawn.
        assert_eq!(draw(4, &[0, 7]), (0, 1));
        assert_eq!(draw(4, &[1 << 63, 7]), (2, 1));
    }
}

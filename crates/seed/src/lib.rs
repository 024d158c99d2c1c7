//! Named random streams: every use of randomness derives its own ChaCha stream from (root seed, name, index).
//!
//! A stream depends on nothing but its path of names and indices, so results do not depend on the order in which
//! work is done, on how many workers do it, or on which other selectors or cells are part of a study.
//!
//! # The tree
//!
//! [`Seed::root`] of a cell's or a dense net's seed is the root of all streams of a study (stages of the harness):
//!
//! ```text
//! dense                        training of the dense net
//!   init/<tensor>              starting weights
//!   train/<training>           the training
//! calibration                  evidence in one-shot mode
//!   images/[class]             images drawn of a class
//!   positions/<layer>/[image]  filters and positions sampled in an image; for a group with several readers
//!                              positions/<group>/<reader>/[image]
//! calibration/<layer>          evidence of one layer in layer-by-layer mode
//!   images/[class]             as above
//!   positions/<layer>/[image]  as above
//! calibration/[draw]           the same for a further draw of the sample, from 1
//! select/<layer>               a selector's choice; read by `random` and by programs alone
//! tune/<layer>/<training>      training after the cut of a layer; the long one after the last is `tune/last`
//! from-scratch                 the control from a random start
//!   init/<tensor>              starting weights
//!   train/<training>           the training
//!
//! <training>:
//!   order/[epoch]              order of the images
//!   augment/[epoch]/[image]    offset and mirroring of an image
//!     crop                     random resized crop of a photograph
//!   torch/[epoch]              libtorch's own generator, which dropout draws from
//! ```
//!
//! Two streams belong to no study and have the root seed 0: `latency` (with `dropout`, `images`, `labels` and
//! `weights/<tensor>`) for the timed models, and `examine` for the images that a check of a dataset reads.

use rand::SeedableRng;
pub use rand_chacha::ChaCha8Rng;

/// A point in the tree of seeds. `Seed::root(s).child("shuffle").index(3)` names one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed([u8; 32]);

impl Seed {
    /// The root of all streams of a run.
    #[must_use]
    pub fn root(seed: u64) -> Self {
        Self(blake3::derive_key("thinet seed v1 root", &seed.to_le_bytes()))
    }

    /// The child with this name.
    #[must_use]
    pub fn child(self, name: &str) -> Self {
        self.derive(b"name", name.as_bytes())
    }

    /// The child with this index.
    #[must_use]
    pub fn index(self, index: u64) -> Self {
        self.derive(b"index", &index.to_le_bytes())
    }

    /// The random stream of this point.
    #[must_use]
    pub fn rng(self) -> ChaCha8Rng {
        ChaCha8Rng::from_seed(self.0)
    }

    /// 63 bits for a library that takes an integer seed (torch's `manual_seed`).
    #[must_use]
    pub fn to_i64(self) -> i64 {
        let mut low = [0; 8];
        low.copy_from_slice(&self.0[..8]);
        i64::from_le_bytes(low) & i64::MAX
    }

    fn derive(self, kind: &[u8], key: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(kind).update(&[0]).update(key);
        Self(*hasher.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;

    #[test]
    fn a_stream_is_pinned_so_that_stored_results_keep_their_meaning() {
        let draws: Vec<u32> = {
            let mut rng = Seed::root(1).child("shuffle").index(2).rng();
            (0..3).map(|_| rng.next_u32()).collect()
        };
        assert_eq!(draws, PINNED);
    }
    const PINNED: [u32; 3] = [3_192_357_019, 512_802_817, 3_676_491_280];

    #[test]
    fn an_integer_for_libtorch_is_the_first_63_bits_and_pinned() {
        let seeds: Vec<Seed> = (0..64).map(|index| Seed::root(1).child("torch").index(index)).collect();
        for seed in &seeds {
            let low = i64::from_le_bytes(seed.0[..8].try_into().unwrap());
            assert_eq!(seed.to_i64(), if low < 0 { low - i64::MIN } else { low });
        }
        let sign_set = seeds.iter().filter(|seed| seed.0[7] >= 128).count();
        assert!((1..64).contains(&sign_set), "both signs have to occur for this to test anything");
        assert_eq!([seeds[0].to_i64(), seeds[1].to_i64()], PINNED_INTEGERS);
    }
    const PINNED_INTEGERS: [i64; 2] = [4_494_639_757_580_082_194, 7_292_200_420_785_375_174];

    #[test]
    fn names_and_indices_make_different_streams() {
        let root = Seed::root(0);
        let all = [root, Seed::root(1), root.child("a"), root.child("b"), root.index(0), root.index(1)];
        for (i, a) in all.iter().enumerate() {
            for b in &all[i + 1..] {
                assert_ne!(a, b);
            }
        }
        assert!(root.child("a").to_i64() >= 0);
    }
}

//! The windows of a consumer on its input: stride, padding and column blocks as index arithmetic.

use thinet_graph::{ChannelGroup, Graph, Op, Reader, Shape};

use crate::SamplingError;

/// How a reader reads the channels of a group.
///
/// A linear layer behind a flatten is treated as a window that covers the whole column block of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    /// C, the channels that are read.
    pub(crate) channels: usize,
    /// D, the filters that read them.
    pub(crate) filters: usize,
    /// Height and width of the window.
    pub(crate) kernel: [usize; 2],
    /// Step from one window to the next.
    pub(crate) stride: usize,
    /// Zeros around the map.
    pub(crate) padding: usize,
    /// Height and width of a channel's map.
    pub(crate) map: [usize; 2],
    /// Height and width of the consumer's output.
    pub(crate) output: [usize; 2],
}

/// A tap of a window that lies on the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tap {
    /// Which tap, of `kernel[0] · kernel[1]` row-major.
    pub(crate) tap: usize,
    /// The place under it, of `map[0] · map[1]` row-major.
    pub(crate) place: usize,
}

impl Window {
    pub(crate) fn new(graph: &Graph, group: &ChannelGroup, reader: &Reader) -> Result<Self, SamplingError> {
        let channels = group.channels;
        match (&graph.nodes()[reader.node].op, graph.shape(reader.input), graph.shape(reader.node)) {
            (
                &Op::Conv { out_channels: filters, kernel, stride, padding, .. },
                Shape::Map { c, h, w },
                Shape::Map { h: rows, w: columns, .. },
            ) if c == channels => Ok(Self {
                channels,
                filters,
                kernel: [kernel; 2],
                stride,
                padding,
                map: [h, w],
                output: [rows, columns],
            }),
            (&Op::Linear { out_features: filters, .. }, Shape::Flat(features), _)
                if features == channels * reader.entry.block =>
            {
                let columns = [1, reader.entry.block];
                Ok(Self {
                    channels,
                    filters,
                    kernel: columns,
                    stride: 1,
                    padding: 0,
                    map: columns,
                    output: [1, 1],
                })
            }
            _ => Err(SamplingError::input(&group.name, "does not belong to this network")),
        }
    }

    /// Taps of a window: weights per channel of a filter.
    pub(crate) fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Places of a channel's map.
    pub(crate) fn places(&self) -> usize {
        self.map[0] * self.map[1]
    }

    /// The taps of the window at output `[row, column]` that lie on the map, in tap order; the others see padding.
    pub(crate) fn taps_on_map(&self, output: [usize; 2]) -> impl Iterator<Item = Tap> {
        let (rows, top) = self.on_map(output, 0);
        let (columns, left) = self.on_map(output, 1);
        let (kernel_width, map_width) = (self.kernel[1], self.map[1]);
        rows.enumerate().flat_map(move |(below, row)| {
            let first = (top + below) * map_width + left;
            let along = columns.clone().enumerate();
            along.map(move |(right, column)| Tap { tap: row * kernel_width + column, place: first + right })
        })
    }

    /// Along one axis: the taps of the window that lie on the map, and the place under the first of them.
    fn on_map(&self, output: [usize; 2], axis: usize) -> (std::ops::Range<usize>, usize) {
        // In coordinates of the padded map, the window starts at `start` and the map at `padding`.
        let start = self.stride * output[axis];
        let first = self.padding.saturating_sub(start);
        let end = (self.padding + self.map[axis]).saturating_sub(start).min(self.kernel[axis]);
        (first..end.max(first), (start + first) - self.padding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The plain version: every tap of the window, kept if it lies on the map.
    fn plain_taps(window: &Window, [row, column]: [usize; 2]) -> Vec<Tap> {
        let mut taps = Vec::new();
        for k1 in 0..window.kernel[0] {
            for k2 in 0..window.kernel[1] {
                let y = (window.stride * row + k1).checked_sub(window.padding).filter(|&y| y < window.map[0]);
                let x =
                    (window.stride * column + k2).checked_sub(window.padding).filter(|&x| x < window.map[1]);
                if let (Some(y), Some(x)) = (y, x) {
                    taps.push(Tap { tap: k1 * window.kernel[1] + k2, place: y * window.map[1] + x });
                }
            }
        }
        taps
    }

    proptest! {
        #[test]
        fn taps_on_the_map_are_found_in_order(
            kernel in 1_usize..6, stride in 1_usize..4, padding in 0_usize..8, map in [1_usize..7, 1_usize..7],
        ) {
            prop_assume!(map.iter().all(|size| size + 2 * padding >= kernel));
            let output = map.map(|size| (size + 2 * padding - kernel) / stride + 1);
            let window = Window { channels: 1, filters: 1, kernel: [kernel; 2], stride, padding, map, output };
            for row in 0..output[0] {
                for column in 0..output[1] {
                    let taps: Vec<Tap> = window.taps_on_map([row, column]).collect();
                    prop_assert_eq!(taps, plain_taps(&window, [row, column]));
                }
            }
        }
    }
}

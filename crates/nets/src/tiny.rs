//! A network small enough for tests that still has every kind of consumer that a cut can affect.

use thinet_graph::{Graph, GraphBuilder, Op};

use crate::NetError;
use crate::parts::{Conv, batch_norm, linear, tip};
use crate::spec::Widths;

const FILTERS: [usize; 3] = [8, 12, 16];

/// Three 3×3 convolutions, a pool behind the first, and a linear layer that reads several columns a channel.
pub(crate) fn tiny(widths: &mut Widths, input: [usize; 3], classes: usize) -> Result<Graph, NetError> {
    let mut net = GraphBuilder::new("tiny", input)?;
    let normalise = widths.spec.has_batch_norm();
    for (published, i) in FILTERS.into_iter().zip(1..) {
        let name = format!("conv{i}");
        let filters = widths.settable(&name, published)?;
        let from = tip(&net);
        Conv { filters, kernel: 3, stride: 1 }.add(&mut net, &name, from, !normalise)?;
        if normalise {
            batch_norm(&mut net, &format!("bn{i}"))?;
        }
        net.add(format!("relu{i}"), Op::Relu {})?;
        if i == 1 {
            net.add("pool1", Op::MaxPool { kernel: 2, stride: 2, padding: 0 })?;
        }
    }
    linear(&mut net, "fc", classes)?;
    Ok(net.finish())
}

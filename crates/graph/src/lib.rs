//! A network as data: typed nodes, shapes, counts, channel groups and surgery plans. Pure; holds no tensors.
//!
//! From one [`Graph`] come the execution, the shapes, the parameter and FLOP counts, the list of tensors that a cut
//! touches and the self-describing weight file.

mod budget;
mod channels;
mod count;
mod error;
mod graph;
mod group;
mod names;
mod shape;
mod surgery;

pub use budget::{NarrowNet, at_keep_rates, at_widths, keep_rate_for_flops};
pub use channels::{ChannelSet, kept_channels};
pub use count::{Convention, Counts, LayerCount, count, count_layers};
pub use error::GraphError;
pub use graph::{Graph, GraphBuilder, Node, NodeId, Op, TensorSpec};
pub use group::{ChannelGroup, Entry, Producer, Reader, channel_group, channel_groups, prunable_layers};
pub use names::{did_you_mean, nearest};
pub use shape::Shape;
pub use surgery::{Cut, Surgery, plan_surgery, with_channels};

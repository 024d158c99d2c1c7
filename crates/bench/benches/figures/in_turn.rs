//! Runs two workloads in turn as one criterion bench.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::Result;
use criterion::{Criterion, SamplingMode};
use thinet_bench::Pairs;

/// Note of a figure whose bench was filtered out on the command line.
pub(crate) const FILTERED: &str = "left out by the filter of the command line";

/// Registers ours as the bench `group/name`; the reference runs once before or after each of its runs, alternately.
///
/// Both return how long they took, so that set-up need not be counted. The first pair is dropped; there are no pairs if the
/// bench was filtered out.
///
/// # Errors
/// The first error of either.
pub(crate) fn in_turn(
    criterion: &mut Criterion,
    [group, name]: [&str; 2],
    ours: &mut dyn FnMut() -> Result<Duration>,
    reference: &mut dyn FnMut() -> Result<Duration>,
) -> Result<Pairs> {
    let mut pairs = Pairs::default();
    let mut failure = None;
    let mut pair = || -> Result<Duration> {
        let (ours, reference) = if pairs.len().is_multiple_of(2) {
            let ours = ours()?;
            (ours, reference()?)
        } else {
            let reference = reference()?;
            (ours()?, reference)
        };
        pairs.push(ours.as_secs_f64(), reference.as_secs_f64());
        Ok(ours)
    };
    let mut run = |count: u64| {
        let mut total = Duration::ZERO;
        for _ in 0..count {
            if failure.is_none() {
                match pair() {
                    Ok(ours) => total += ours,
                    Err(error) => failure = Some(error),
                }
            }
        }
        // Criterion cannot be stopped and requires times above zero; its result after a failure is never shown.
        total.max(Duration::from_nanos(1))
    };
    let mut benches = criterion.benchmark_group(group);
    benches.sampling_mode(SamplingMode::Flat);
    benches.bench_function(name, |bencher| bencher.iter_custom(&mut run));
    benches.finish();
    failure.map_or(Ok(pairs.warm()), Err)
}

/// How long the work takes, without the time to drop its result.
pub(crate) fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<Duration> {
    let start = Instant::now();
    let result = black_box(work()?);
    let time = start.elapsed();
    drop(result);
    Ok(time)
}

/// Seconds, or milliseconds where there are few.
pub(crate) fn duration(seconds: f64) -> String {
    match seconds {
        long if long >= 10.0 => format!("{long:.0} s"),
        short if short < 1.0 => format!("{:.1} ms", short * 1e3),
        _ => format!("{seconds:.2} s"),
    }
}

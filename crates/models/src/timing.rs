//! Wall-clock time of work on a device.

use std::time::Instant;

use crate::Device;

/// Does the work and returns its value with the milliseconds that it took.
///
/// A GPU works through a queue while the program goes on, so the device is idle at both readings of the clock.
/// What `work` returns is dropped by the caller, after the second reading.
pub fn timed<T>(device: Device, work: impl FnOnce() -> T) -> (T, f64) {
    device.synchronize();
    let start = Instant::now();
    let output = work();
    device.synchronize();
    (output, start.elapsed().as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_work_is_done_once_and_its_value_and_milliseconds_are_returned() {
        let mut calls = 0;
        let started = Instant::now();
        let (value, ms) = timed(Device::Cpu, || {
            calls += 1;
            // However fast or busy the machine is, this lasts 3 ms or longer, and no longer than the clock around it.
            let begun = Instant::now();
            while begun.elapsed().as_micros() < 3000 {
                std::hint::spin_loop();
            }
            "done"
        });
        let around = started.elapsed().as_micros() as f64 / 1000.0;
        assert_eq!((value, calls), ("done", 1));
        assert!((3.0..=around + 0.001).contains(&ms), "{ms} ms of {around}");
    }
}

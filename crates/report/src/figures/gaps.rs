//! What a figure cannot show, in words: methods and keep rates that diverged, were not run, or have fewer seeds than the study.

/// A method at one keep rate of a variant, in one phase.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Point {
    pub(crate) keep_rate: f64,
    /// Number of seeds that were measured.
    pub(crate) seeds: u64,
    pub(crate) has_diverged: bool,
}

/// The gaps of methods, each with its points, in a study of so many seeds, in sentences; empty without any.
pub(crate) fn gaps(methods: &[(&str, Vec<Point>)], seeds: u64) -> String {
    let of_all = |is_it: fn(&Point) -> bool| -> Vec<String> {
        methods.iter().filter_map(|(label, points)| part(label, points, is_it)).collect()
    };
    let diverged = of_all(|point| point.seeds == 0 && point.has_diverged);
    let not_run = of_all(|point| point.seeds == 0 && !point.has_diverged);
    let mut text = String::new();
    for (words, list) in
        [("Diverged", diverged), ("Not run", not_run), ("Fewer seeds", with_fewer_seeds(methods, seeds))]
    {
        if !list.is_empty() {
            text.push_str(&format!(" {words}: {}.", list.join("; ")));
        }
    }
    text
}

/// The methods and keep rates that were measured with fewer seeds than the study has. Where a seed is missing everywhere, one entry.
fn with_fewer_seeds(methods: &[(&str, Vec<Point>)], seeds: u64) -> Vec<String> {
    let measured =
        |points: &[Point]| -> Vec<Point> { points.iter().filter(|point| point.seeds > 0).copied().collect() };
    let all: Vec<Point> = methods.iter().flat_map(|(_, points)| measured(points)).collect();
    let counts = |points: &[Point]| {
        let mut counts: Vec<u64> = points.iter().map(|point| point.seeds).collect();
        counts.sort_unstable();
        counts.dedup();
        counts
    };
    if let [n] = counts(&all)[..]
        && methods.len() > 1
    {
        return if n < seeds { vec![format!("all that were run (n = {n})")] } else { Vec::new() };
    }
    let mut list = Vec::new();
    for (label, points) in methods {
        for n in counts(&measured(points)).into_iter().filter(|n| *n < seeds) {
            let entry = part(label, points, |point| point.seeds == n);
            list.extend(entry.map(|entry| format!("{entry} (n = {n})")));
        }
    }
    list
}

/// A method's points of one kind: `thinet` if these are all of its points, else `thinet at 0.5, 0.3`; `None` without any.
fn part(label: &str, points: &[Point], is_it: impl Fn(&Point) -> bool) -> Option<String> {
    let mut rates: Vec<f64> = Vec::new();
    for point in points.iter().filter(|point| is_it(point)) {
        if !rates.contains(&point.keep_rate) {
            rates.push(point.keep_rate);
        }
    }
    if rates.is_empty() {
        return None;
    }
    if points.iter().all(is_it) {
        return Some(label.to_owned());
    }
    let rates: Vec<String> = rates.iter().map(f64::to_string).collect();
    Some(format!("{label} at {}", rates.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Points at the keep rates 0.7, 0.5 and 0.3 with so many seeds each.
    fn points(seeds: [u64; 3]) -> Vec<Point> {
        [0.7, 0.5, 0.3]
            .into_iter()
            .zip(seeds)
            .map(|(keep_rate, seeds)| Point { keep_rate, seeds, has_diverged: false })
            .collect()
    }

    #[test]
    fn a_whole_study_has_no_gaps() {
        assert_eq!(gaps(&[("a", points([3; 3])), ("b", points([3; 3]))], 3), "");
    }

    #[test]
    fn a_seed_that_is_missing_everywhere_is_said_once() {
        let text = gaps(&[("a", points([4; 3])), ("b", points([4; 3]))], 5);
        assert_eq!(text, " Fewer seeds: all that were run (n = 4).");
        // What was never run does not hide it.
        let text = gaps(&[("a", points([4, 4, 0])), ("b", points([4; 3]))], 5);
        assert_eq!(text, " Not run: a at 0.3. Fewer seeds: all that were run (n = 4).");
    }

    #[test]
    fn fewer_seeds_are_named_by_method_and_rate() {
        let methods = [("a", points([2, 2, 3])), ("b", points([1; 3])), ("c", points([3; 3]))];
        assert_eq!(gaps(&methods, 3), " Fewer seeds: a at 0.7, 0.5 (n = 2); b (n = 1).");
        let methods = [("a", points([2, 1, 3])), ("c", points([3; 3]))];
        assert_eq!(gaps(&methods, 3), " Fewer seeds: a at 0.5 (n = 1); a at 0.7 (n = 2).");
    }

    #[test]
    fn divergence_is_no_gap_of_a_run() {
        let mut diverged = points([0, 3, 3]);
        diverged[0].has_diverged = true;
        let text = gaps(&[("a", diverged), ("b", points([0; 3]))], 3);
        assert_eq!(text, " Diverged: a at 0.7. Not run: b.");
    }
}

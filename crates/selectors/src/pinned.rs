//! Pinned answers of a registry's methods: support for the tests of this crate and of those with a registry of their own.
//!
//! A file of pinned answers has an entry for each method, separated by empty lines: a head of name and version, then the answer to
//! fixed input. Stored results are looked up by name and version, so a changed answer needs a new version.

/// The answer of a registered method.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its name in the registry.
    pub name: &'static str,
    /// Its version, from 1.
    pub version: u32,
    /// The answer to fixed input.
    pub lines: Vec<String>,
}

impl Answer {
    fn head(&self) -> String {
        format!("{} version {}", self.name, self.version)
    }

    fn entry(&self) -> String {
        let mut entry = self.head();
        for line in &self.lines {
            entry.push('\n');
            entry.push_str(line);
        }
        entry
    }
}

/// Compares the answers of all methods of a registry, a `what` each, with the text of `file`. Returns what is wrong and how to mend
/// it: an answer that changed under its version, one that is not pinned, an entry without a method, a version below 1.
#[must_use]
pub fn problems(what: &str, file: &str, pinned: &str, answers: &[Answer]) -> Vec<String> {
    let pinned: Vec<&str> = pinned.trim().split("\n\n").collect();
    let head_of = |entry: &str| entry.lines().next().unwrap_or_default().to_owned();
    let mut problems = Vec::new();
    for answer in answers {
        let (head, entry) = (answer.head(), answer.entry());
        match pinned.iter().find(|pinned| head_of(pinned) == head) {
            Some(pinned) if **pinned == entry => {}
            Some(pinned) => problems.push(format!(
                "{what} {:?} answers otherwise than before under version {}. If that is a fault, mend it. If it is meant, raise \
                 its `version`, so that results stored before are not taken for new ones, and replace its entry in \
                 {file}.\n\nPinned:\n{pinned}\n\nNow:\n{entry}\n",
                answer.name, answer.version,
            )),
            None => problems.push(format!(
                "no answer of {head} is pinned. Add this entry to {file}, after an empty line (in place of the entry of an \
                 older version):\n\n{entry}\n"
            )),
        }
        if answer.version < 1 {
            problems.push(format!("{what} {:?} has version 0; versions start at 1", answer.name));
        }
    }
    for entry in pinned {
        let head = head_of(entry);
        if !answers.iter().any(|answer| answer.head() == head) {
            problems.push(format!("{file} pins {head:?}, which is not registered: remove the entry"));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "a version 1\n  keeps 1\n\nb version 2\n  keeps 2\n  scores 3\n";

    fn answer(name: &'static str, version: u32, lines: &[&str]) -> Answer {
        Answer { name, version, lines: lines.iter().map(|line| (*line).to_owned()).collect() }
    }

    fn found(answers: &[Answer]) -> Vec<String> {
        let lines = |problem: String| problem.lines().next().unwrap_or_default().to_owned();
        problems("method", "answers.txt", FILE, answers).into_iter().map(lines).collect()
    }

    #[test]
    fn every_difference_is_a_problem() {
        let (a, b) = (answer("a", 1, &["  keeps 1"]), answer("b", 2, &["  keeps 2", "  scores 3"]));
        assert_eq!(found(&[a.clone(), b.clone()]), [""; 0]);
        let changed = found(&[a.clone(), answer("b", 2, &["  keeps 2", "  scores 4"])]);
        assert!(
            changed.len() == 1 && changed[0].starts_with("method \"b\" answers otherwise"),
            "{changed:?}"
        );
        let raised = found(&[a.clone(), answer("b", 3, &["  keeps 2", "  scores 4"])]);
        assert!(raised[0].starts_with("no answer of b version 3 is pinned."), "{raised:?}");
        let rest = "answers.txt pins \"b version 2\", which is not registered: remove the entry";
        assert_eq!(raised[1], rest);
        assert_eq!(found(std::slice::from_ref(&a)), [rest]);
        let zero = found(&[a, b, answer("c", 0, &[])]);
        assert_eq!(zero[1], "method \"c\" has version 0; versions start at 1");
    }
}

//! The messages between a stage and a selector's program: lines of JSON. `docs/your-own-selector.md` describes them.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use thinet_selectors::{EvidenceKind, Needs};

use crate::study::PROTOCOL;

/// Characters of a program's own error that are kept.
const LONGEST_ERROR: usize = 4000;

/// The first line of a program: which protocol it follows, and what it reads.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HelloLine {
    protocol: u32,
    name: String,
    needs: Vec<String>,
}

/// What a program said about itself.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Hello {
    pub(crate) name: String,
    /// The kinds of evidence that it is handed; no others.
    pub(crate) needs: Needs,
}

/// A question about a layer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Question {
    /// Absolute path of a safetensors file with the evidence.
    pub(crate) evidence: String,
    pub(crate) layer: String,
    /// C, the channels of the layer.
    pub(crate) channels: usize,
    /// The numbers of channels that will be kept, ascending. The answer serves all of them and must not depend on them.
    pub(crate) keep: Vec<usize>,
    /// For programs that draw at random; below 2⁵³, so that every language can read it.
    pub(crate) seed: u64,
}

/// An answer as written. One of the keys.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct AnswerLine {
    order: Option<Vec<usize>>,
    scores: Option<Vec<f64>>,
    error: Option<String>,
}

/// An answer as it is used.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    /// Channels, first removed first.
    pub(crate) order: Vec<usize>,
    /// The scores that the order follows from, if the program gave scores.
    pub(crate) scores: Option<Vec<f64>>,
}

/// Why a line is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoAnswer {
    /// The program says why it has none.
    #[error("{0}")]
    Said(String),
    /// What is wrong with the line.
    #[error("{0}")]
    Wrong(String),
}

impl From<String> for NoAnswer {
    fn from(problem: String) -> Self {
        Self::Wrong(problem)
    }
}

impl Hello {
    /// Reads the first line of a program.
    ///
    /// # Errors
    /// If it is no hello, of another protocol, or names an unknown kind of evidence.
    pub(crate) fn read(line: &str) -> Result<Self, String> {
        let hello: HelloLine = serde_json::from_str(line).map_err(|_| {
            format!(
                "its first line {} is no hello; standard output is for the protocol alone",
                shortened(line)
            )
        })?;
        if hello.protocol != PROTOCOL {
            return Err(format!(
                "it follows protocol {}, and this version of thinet protocol {PROTOCOL}",
                hello.protocol
            ));
        }
        let add = |needs, key: &String| Ok::<_, String>(needs | Needs::only(EvidenceKind::of_key(key)?));
        let needs = hello.needs.iter().try_fold(Needs::NONE, add).map_err(|e| format!("its hello: {e}"))?;
        Ok(Self { name: hello.name, needs })
    }
}

impl Question {
    /// The question as a line, without the line end.
    pub(crate) fn line(&self) -> String {
        serde_json::to_string(self)
            .unwrap_or_else(|_| unreachable!("texts and numbers can be written as JSON"))
    }

    /// Reads an answer. An order is long enough for the smallest number of channels to keep. Scores are sorted: the smallest goes first,
    /// and among equals the lowest index.
    ///
    /// # Errors
    /// If it is no answer, or does not fit the layer; the message says what is wrong.
    pub(crate) fn read_answer(&self, line: &str) -> Result<Answer, NoAnswer> {
        let answer: AnswerLine = serde_json::from_str(line).map_err(|e| {
            let hint = match ["NaN", "Infinity"].iter().any(|word| line.contains(word)) {
                true => " (NaN and Infinity are no numbers of JSON, and no score can be one)",
                false => "",
            };
            format!("its answer {} cannot be read: {e}{hint}", shortened(line))
        })?;
        match answer {
            AnswerLine { order: Some(order), scores: None, error: None } => {
                Ok(Answer { order: self.check_order(order)?, scores: None })
            }
            AnswerLine { order: None, scores: Some(scores), error: None } => {
                Ok(Answer { order: self.ranked(&scores)?, scores: Some(scores) })
            }
            AnswerLine { order: None, scores: None, error: Some(error) } => {
                let words = error.lines().collect::<Vec<_>>().join(" | ");
                let words = if words.is_empty() { "it gave an error without a word" } else { &words };
                Err(NoAnswer::Said(words.chars().take(LONGEST_ERROR).collect()))
            }
            _ => {
                let start = shortened(line);
                Err(format!("its answer {start} needs one of the keys order, scores and error").into())
            }
        }
    }

    fn check_order(&self, order: Vec<usize>) -> Result<Vec<usize>, String> {
        let channels = self.channels;
        let least = self.keep.iter().min().map_or(0, |keep| channels - keep);
        if order.len() < least || order.len() > channels {
            let length = order.len();
            return Err(format!("its order lists {length} channels; {least} to {channels} are needed"));
        }
        let mut listed = BTreeSet::new();
        for &channel in &order {
            if channel >= channels {
                return Err(format!(
                    "its order lists channel {channel}, and the layer has 0 to {}",
                    channels - 1
                ));
            }
            if !listed.insert(channel) {
                return Err(format!("its order lists channel {channel} twice"));
            }
        }
        Ok(order)
    }

    fn ranked(&self, scores: &[f64]) -> Result<Vec<usize>, String> {
        if scores.len() != self.channels {
            return Err(format!("it gave {} scores for {} channels", scores.len(), self.channels));
        }
        if let Some(at) = scores.iter().position(|score| !score.is_finite()) {
            return Err(format!("its score of channel {at} is {}", scores[at]));
        }
        let mut order: Vec<usize> = (0..self.channels).collect();
        // Both zeros are one score.
        order.sort_by(|&a, &b| (scores[a] + 0.0).total_cmp(&(scores[b] + 0.0)));
        Ok(order)
    }
}

/// The start of a line in quotes.
fn shortened(line: &str) -> String {
    const SHOWN: usize = 80;
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}…", &line[..end]),
        None => format!("{line:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(channels: usize, keep: &[usize]) -> Question {
        Question { evidence: "/e".into(), layer: "conv1".into(), channels, keep: keep.to_vec(), seed: 7 }
    }

    #[test]
    fn a_question_is_a_line_of_json() {
        let expected = r#"{"evidence":"/e","layer":"conv1","channels":4,"keep":[1,2],"seed":7}"#;
        assert_eq!(question(4, &[1, 2]).line(), expected);
    }

    #[test]
    fn an_order_is_taken_as_it_is_and_scores_are_sorted_with_ties_by_the_lowest_index() {
        let question = question(4, &[2, 3]);
        let answer = |order: &[usize], scores| Answer { order: order.to_vec(), scores };
        let read = |line| question.read_answer(line).unwrap();
        assert_eq!(read(r#"{"order": [3, 1]}"#), answer(&[3, 1], None));
        assert_eq!(read(r#"{"order": [3, 1, 0, 2]}"#), answer(&[3, 1, 0, 2], None));
        assert_eq!(
            read(r#"{"scores": [0.0, 3, -1.5, -0.0]}"#),
            answer(&[2, 0, 3, 1], Some(vec![0.0, 3.0, -1.5, -0.0]))
        );
    }

    #[test]
    fn answers_that_do_not_fit_say_what_is_wrong() {
        let question = question(4, &[2, 3]);
        for (answer, expected) in [
            (r#"{"order": [1]}"#, "its order lists 1 channels; 2 to 4 are needed"),
            (r#"{"order": [0, 1, 2, 3, 3]}"#, "its order lists 5 channels; 2 to 4 are needed"),
            (r#"{"order": [1, 1]}"#, "its order lists channel 1 twice"),
            (r#"{"order": [1, 4]}"#, "its order lists channel 4, and the layer has 0 to 3"),
            (r#"{"order": [1, -1]}"#, "its answer"),
            (r#"{"scores": [1, 2, 3]}"#, "it gave 3 scores for 4 channels"),
            (r#"{"scores": [1, 2, 3, NaN]}"#, "no score can be one"),
            (r#"{"scores": [1, 2, 3, 1e999]}"#, "its answer"),
            (r#"{"scores": [1, 2, 3, null]}"#, "its answer"),
            (r#"{"error": "no idea\nat all"}"#, "no idea | at all"),
            (r#"{"error": ""}"#, "it gave an error without a word"),
            ("{}", "needs one of the keys order, scores and error"),
            (r#"{"order": [1, 2], "scores": [1, 2, 3, 4]}"#, "needs one of the keys order, scores and error"),
            (r#"{"ordr": [1, 2]}"#, "unknown field `ordr`"),
            ("hello", "its answer \"hello\" cannot be read"),
            ("", "its answer \"\" cannot be read"),
        ] {
            let problem = question.read_answer(answer).unwrap_err().to_string();
            assert!(problem.contains(expected), "{answer}: {problem}");
        }
    }

    #[test]
    fn a_hello_names_protocol_program_and_needs() {
        let read = |line: &str| Hello::read(line);
        let hello = read(r#"{"protocol": 1, "name": "l1", "needs": ["filters", "moments"]}"#).unwrap();
        assert_eq!(hello, Hello { name: "l1".into(), needs: Needs::FILTERS | Needs::MOMENTS });
        for (line, expected) in [
            (
                r#"{"protocol": 2, "name": "l1", "needs": []}"#,
                "it follows protocol 2, and this version of thinet protocol 1",
            ),
            (r#"{"protocol": 1, "name": "l1", "needs": ["filter"]}"#, "did you mean \"filters\"?"),
            ("Python 3.11", "its first line \"Python 3.11\" is no hello"),
        ] {
            let problem = read(line).unwrap_err();
            assert!(problem.contains(expected), "{line}: {problem}");
        }
    }
}

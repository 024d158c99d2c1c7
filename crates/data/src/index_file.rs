//! Lines of the text files that say which image has which class. A missing, blank or repeated line would shift labels
//! unnoticed, so every line is checked and errors name file and line.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::DataError;

/// The lines of a file.
pub(crate) struct IndexFile {
    path: PathBuf,
    text: String,
}

impl IndexFile {
    /// Reads a file of UTF-8 text, without a byte-order mark at its start. If the file is missing, `hint` says what should
    /// be there.
    pub(crate) fn read(path: &Path, hint: &str) -> Result<Self, DataError> {
        let bytes = fs::read(path).map_err(|error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => {
                DataError::Missing { path: path.to_owned(), hint: hint.to_owned() }
            }
            _ => DataError::io(path, "read")(error),
        })?;
        if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
            return Err(DataError::format(path, "is UTF-16 text; save it as UTF-8"));
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = good.iter().filter(|byte| **byte == b'\n').count();
            bad_line(path, line, "is not UTF-8 text")
        })?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text).trim_end();
        if text.is_empty() {
            return Err(DataError::format(path, "is empty"));
        }
        Ok(Self { path: path.to_owned(), text: text.to_owned() })
    }

    /// The trimmed lines with their numbers from 0. Blank lines are errors, except at the end of the file. Lines may end as
    /// on Windows.
    pub(crate) fn lines(&self) -> impl Iterator<Item = Result<(usize, &str), DataError>> {
        self.text.lines().enumerate().map(|(line, text)| match text.trim() {
            "" => Err(self.bad(line, "is blank")),
            text => Ok((line, text)),
        })
    }

    /// The error of a line, numbered from 0.
    pub(crate) fn bad(&self, line: usize, problem: impl std::fmt::Display) -> DataError {
        bad_line(&self.path, line, problem)
    }
}

fn bad_line(path: &Path, line: usize, problem: impl std::fmt::Display) -> DataError {
    DataError::format(path, format!("line {}: {problem}", line + 1))
}

/// A whole number in decimal digits, without sign.
pub(crate) fn number(text: &str) -> Option<usize> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Vec<(usize, String)>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        fs::write(&path, bytes).unwrap();
        let lines = IndexFile::read(&path, "").and_then(|file| {
            file.lines().map(|line| line.map(|(number, text)| (number, text.to_owned()))).collect()
        });
        lines.map_err(|error| error.to_string().replace(&folder.path().display().to_string(), "DIR"))
    }

    #[test]
    fn line_ends_and_a_byte_order_mark_do_not_matter() {
        let expected = Ok(vec![(0, "1 a".to_owned()), (1, "2 b".to_owned())]);
        for text in [
            "1 a\n2 b",
            "1 a\n2 b\n",
            "1 a\r\n2 b\r\n",
            "\u{feff}1 a\n2 b\n",
            "1 a \n 2 b\n\n",
            "1 a\n2 b\r\n\r\n",
        ] {
            assert_eq!(read(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn blank_lines_and_other_encodings_are_refused() {
        let says = |bytes: &[u8]| read(bytes).unwrap_err();
        assert_eq!(says(b"1 a\n\n2 b\n"), "DIR/a.txt: line 2: is blank");
        assert_eq!(says(b"\r\n1 a\r\n"), "DIR/a.txt: line 1: is blank");
        assert_eq!(says(b"1 a\n2 \xe9\n"), "DIR/a.txt: line 2: is not UTF-8 text");
        assert_eq!(says(b"\xff\xfe1\0\n\0"), "DIR/a.txt: is UTF-16 text; save it as UTF-8");
        for nothing in ["", "\n", "\u{feff}\r\n"] {
            assert_eq!(says(nothing.as_bytes()), "DIR/a.txt: is empty");
        }
    }

    #[test]
    fn numbers_are_digits_and_nothing_else() {
        assert_eq!(
            ["12", "012", "", "+1", "-1", "1.0", "99999999999999999999"].map(number),
            [Some(12), Some(12), None, None, None, None, None]
        );
    }

    #[test]
    fn a_missing_file_is_told_from_one_that_cannot_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let missing = IndexFile::read(&folder.path().join("no.txt"), "get it").err().unwrap();
        assert!(matches!(&missing, DataError::Missing { hint, .. } if hint == "get it"), "{missing}");
        let unreadable = IndexFile::read(folder.path(), "").err().unwrap();
        assert!(matches!(unreadable, DataError::Io { .. }), "{unreadable}");
    }
}

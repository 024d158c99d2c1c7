//! Lines on standard output and standard error, without the standard macros' panic when the reader has gone.

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write as _};

/// `println!` of this crate. `thinet plan … | head` ends here, quietly; any other failure is an error.
macro_rules! println {
    () => { $crate::output::line(format_args!("")) };
    ($($text:tt)*) => { $crate::output::line(format_args!($($text)*)) };
}

/// `eprintln!` of this crate. A run goes on when nobody reads what it says about itself.
macro_rules! eprintln {
    ($($text:tt)*) => { $crate::output::note(format_args!($($text)*)) };
}

pub(crate) fn line(text: Arguments<'_>) {
    let Err(error) = writeln!(io::stdout(), "{text}") else { return };
    let reader_has_gone = error.kind() == ErrorKind::BrokenPipe;
    if !reader_has_gone {
        note(format_args!("error: cannot write to standard output: {error}"));
    }
    #[expect(clippy::exit, reason = "there is nobody left to print for")]
    std::process::exit(i32::from(!reader_has_gone));
}

pub(crate) fn note(text: Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{text}");
}

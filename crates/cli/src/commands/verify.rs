//! `thinet verify`: cells of a table made again, and compared with it.

use thinet_harness::{HarnessError, Verified, VerifyOptions, verify as verify_table};

use super::print_json;
use crate::args::Verify;
use crate::bars::Progress;

/// Points of accuracy by which a GPU, whose sums have no fixed order, may differ without a word.
const GPU_TOLERANCE: f64 = 0.5;

pub(crate) fn verify(arguments: &Verify) -> anyhow::Result<()> {
    let is_gpu = arguments.place.device.starts_with("cuda");
    let options = VerifyOptions {
        cells: arguments.cell.clone(),
        count: if arguments.all { usize::MAX } else { usize::from(arguments.cells) },
        with_dense: arguments.dense,
        tolerance: arguments.tolerance.or(is_gpu.then_some(GPU_TOLERANCE)),
    };
    let table = arguments.table.trim_end_matches(".csv").rsplit('/').next().unwrap_or_default();
    let place = arguments.place.options(None);
    let progress = Progress::new(0);
    let verified = verify_table(table, arguments.spec.as_deref(), &place, &options, &progress);
    progress.close();
    let verified = verified?;
    let differ = verified.iter().filter(|cell| !cell.differences.is_empty()).count();
    if arguments.json {
        print_json(&verified)?;
    } else {
        verified.iter().for_each(print);
        let how = options.tolerance.map_or_else(|| "to the last digit".to_owned(), |t| format!("within {t}"));
        println!("{} of {} cells agree {how}", verified.len() - differ, verified.len());
    }
    if differ > 0 {
        let path = place.results.join("tables").join(format!("{table}.csv"));
        return Err(HarnessError::Unlike { path, differ, cells: verified.len() }.into());
    }
    Ok(())
}

fn print(verified: &Verified) {
    let Verified { cell, label, differences, same_weights } = verified;
    let weights = match same_weights {
        Some(true) => ", weights too",
        Some(false) => ", weights differ from the stored ones",
        None => "",
    };
    if differences.is_empty() {
        println!("agrees  {label} ({cell}){weights}");
        return;
    }
    println!("DIFFERS {label} ({cell}){weights}");
    for (column, before, now) in differences {
        println!("        {column}: {before} in the table, {now} now");
    }
}

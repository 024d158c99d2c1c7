//! The published figure on CUB-200 (Luo et al. 2017, figure 4), read from the table that holds it beside the results of our own study.

use super::FigureError;
use super::source::Tables;
use super::study::Method;

/// The table with the published values.
pub(super) const TABLE: &str = "cub200-selectors-summary";
const NEEDED: [&str; 11] = [
    "selector",
    "reconstruction",
    "keep_rate",
    "params_fraction",
    "flops_fraction",
    "published_method",
    "published_data",
    "published_top1",
    "published_in_paper",
    "published_suspect",
    "published_verified",
];

/// A published point.
pub(super) struct PublishedPoint {
    pub(super) method: Method,
    pub(super) keep_rate: f64,
    pub(super) params_fraction: f64,
    pub(super) flops_fraction: f64,
    /// Per cent.
    pub(super) top1: f64,
}

/// The published figure.
pub(super) struct Published {
    pub(super) table: String,
    /// Its dataset.
    pub(super) data: String,
    pub(super) dense: Option<f64>,
    pub(super) points: Vec<PublishedPoint>,
    /// What a caption must say about it.
    pub(super) note: String,
}

impl Published {
    /// `None` if there is no such table or it holds no published value.
    pub(super) fn read(tables: &mut Tables) -> Result<Option<Self>, FigureError> {
        let Some(sheet) = tables.sheet(TABLE, &NEEDED)? else { return Ok(None) };
        let (mut dense, mut points) = (None, Vec::new());
        let (mut suspect, mut outside, mut unverified) = (Vec::new(), Vec::new(), false);
        for row in sheet.rows() {
            let Some(top1) = sheet.number(row, "published_top1")? else { continue };
            unverified |= !sheet.flag(row, "published_verified")?;
            let method = sheet.label(row, "published_method");
            let keep_rate = sheet.required(row, "keep_rate")?;
            if sheet.text(row, "selector").is_none() {
                dense = Some(top1);
                continue;
            }
            if sheet.flag(row, "published_suspect")? {
                suspect.push(format!("{method} at {keep_rate} ({top1})"));
                continue;
            }
            if !sheet.flag(row, "published_in_paper")? && !outside.contains(&method) {
                outside.push(method.clone());
            }
            points.push(PublishedPoint {
                method: Method {
                    label: method,
                    selector: sheet.label(row, "selector"),
                    reconstruction: sheet.label(row, "reconstruction"),
                },
                keep_rate,
                params_fraction: sheet.required(row, "params_fraction")?,
                flops_fraction: sheet.required(row, "flops_fraction")?,
                top1,
            });
        }
        let data = sheet.only("published_data")?;
        let mut note = format!(
            " Published: {data}, VGG-16-GAP, Luo et al. 2017, figure 4, from the authors' plotting script; number of runs not stated."
        );
        if !outside.is_empty() {
            note.push_str(&format!(" In the script's history only: {}.", outside.join(", ")));
        }
        if !suspect.is_empty() {
            note.push_str(&format!(" Not drawn as a probable slip: {}.", suspect.join(", ")));
        }
        if unverified {
            note.push_str(" Some published values were not checked in their source.");
        }
        let table = TABLE.to_owned();
        Ok((!points.is_empty()).then_some(Self { table, data, dense, points, note }))
    }
}

//! The section of a study: what it is, its chart, its figures, its tables.

use std::collections::BTreeMap;

use maud::{Markup, html};
use serde_json::Value;

use super::table::{Column, Frame, Kind, code, column, table};
use super::{FigureError, Source, cells, columns, explore, plots};
use crate::figures::source::{SPEC, Sheet, Tables};
use crate::figures::study::{Stat, Study, VARIANT, index_of};
use crate::figures::{Figure, Figures};
use crate::tables::{BESIDE, CHECKLIST, DRAWS, LAYERS, LOSSES, grouped};

/// Columns of a main table that the page cannot do without.
const NEEDED: [&str; 11] = [
    "run",
    "method",
    "selector",
    "keep_rate",
    "seed",
    "status",
    "cell",
    "params",
    "flops",
    "params_fraction",
    "flops_fraction",
];
/// Endings of the names of the figures of a study, in their order on the page. The chart takes the place of those of accuracy.
const FIGURES: [&str; 7] =
    ["-samples", DRAWS, "-differences", "-reconstruction", "-agreement", "-widths", LOSSES];

/// A finished section.
pub(super) struct Section {
    pub(super) table: String,
    /// Short name for the navigation.
    pub(super) title: String,
    pub(super) is_ablation: bool,
    /// Its row in the table of studies.
    pub(super) facts: Facts,
    pub(super) markup: Markup,
    pub(super) checklist: Option<Markup>,
    /// What limits its conclusions, a sentence each.
    pub(super) limits: Vec<String>,
    /// The chart's data and specification.
    pub(super) explorer: Option<Value>,
    /// Specifications of its figures, by name.
    pub(super) plots: BTreeMap<String, Value>,
    /// The script with its cells.
    pub(super) cells: String,
}

/// What the table of studies says.
pub(super) struct Facts {
    pub(super) dataset: String,
    pub(super) net: String,
    pub(super) mode: String,
    pub(super) methods: usize,
    pub(super) rates: String,
    pub(super) variants: usize,
    pub(super) seeds: String,
    pub(super) test_images: u64,
    pub(super) dense: Option<Stat>,
    pub(super) run: String,
}

impl Section {
    /// Studies with a chart first, ablations after them, single points last.
    pub(super) fn order(&self) -> (u8, u8, String) {
        let kind = match (self.is_ablation, self.explorer.is_some()) {
            (false, true) => 0,
            (true, _) => 1,
            (false, false) => 2,
        };
        (kind, u8::from(!self.table.starts_with("selectors-")), self.table.clone())
    }
}

/// Whether a table belongs to a study: its own and those beside it.
pub(super) fn belongs(table: &str, study: &str) -> bool {
    let rest = table.strip_prefix(study);
    rest.is_some_and(|rest| rest.is_empty() || BESIDE.contains(&rest))
}

pub(super) fn section(
    tables: &mut Tables,
    study: &Study,
    drawn: &Figures,
    source: &Source<'_>,
) -> Result<Section, FigureError> {
    let name = &study.table;
    let Some(main) = tables.sheet(name, &NEEDED)? else {
        return Err(FigureError::NoTable {
            path: tables.path(name, "csv"),
            problem: "it does not exist".to_owned(),
        });
    };
    study.check_run(&main)?;
    main.only("dataset")?;
    let layers = tables.sheet(&format!("{name}{LAYERS}"), &["run", "cell", "layer", "channels", "kept"])?;
    if let Some(layers) = &layers {
        study.check_run(layers)?;
    }
    let run_folder = source.runs.iter().find(|run| run.id == study.run).map(|run| run.link.as_str());
    let explorer = explore::explorer(study, &main)?;
    let script = cells::script(tables, study, &main, layers.as_ref(), run_folder)?;
    let of_ending =
        |ending: &&str| drawn.drawn.iter().find(|figure| figure.name == format!("{name}{ending}"));
    let figures: Vec<&Figure> = FIGURES.iter().filter_map(of_ending).collect();
    let plots = figures.iter().map(|figure| (figure.name.clone(), plots::interactive(figure))).collect();
    let is_ablation = !study.variants.is_empty();
    // The name tells studies of one data set apart.
    let title = format!("{} on {}: {name}", kind_of(study), study.dataset);
    let limits = limits(study, &main);
    let checklist = match tables.sheet(&format!("{name}{CHECKLIST}"), &[])? {
        Some(sheet) => Some(checklist(tables, name, &sheet)?),
        None => None,
    };
    let own = own_tables(tables, study, &main)?;
    let spec = tables.bytes(name, SPEC)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let markup = html! {
        section.study id=(format!("study-{name}")) data-study=(name) aria-labelledby=(format!("title-{name}")) {
            h3 id=(format!("title-{name}")) { (title) }
            p.facts { (facts_line(study)) }
            @if let Some(spec) = &spec {
                details.small { summary { "Recipe: the spec with every default filled in" } pre tabindex="0" { (spec) } }
            }
            (result(study, &main))
            @if let Some(explorer) = &explorer { (explorer_markup(study, explorer)) }
            @if !figures.is_empty() {
                h4 { "Figures" }
                @if explorer.is_none() { div.legend data-legend=(name) role="group" aria-label="Methods" {} }
                @for figure in figures { (figure_markup(figure, source.pictures)) }
            }
            h4 { "Tables" }
            (own)
            @match run_folder {
                Some(link) => p.small { "Raw rows, log and training curves of this run: " a href=(link) { code { (link) } } "." },
                None => p.small {
                    "The folder of run " code { (study.run) }
                    " is not on this machine: training curves and logs lie only there, everything on this page comes from the tables."
                },
            }
        }
    };
    Ok(Section {
        table: name.clone(),
        title,
        is_ablation,
        facts: facts(study),
        markup,
        checklist,
        limits,
        explorer,
        plots,
        cells: script,
    })
}

fn kind_of(study: &Study) -> &'static str {
    match (study.variants.is_empty(), study.is_untuned()) {
        (false, _) => "Ablation",
        (true, true) => "Selection alone, not tuned,",
        (true, false) => "Pruned and tuned",
    }
}

fn facts(study: &Study) -> Facts {
    let rates: Vec<String> = study.keep_rates.iter().map(f64::to_string).collect();
    let rates = match &rates[..] {
        [first, .., last] if rates.len() > 4 => format!("{first} to {last} ({})", rates.len()),
        _ => rates.join(", "),
    };
    Facts {
        dataset: study.dataset.clone(),
        net: format!("{}{}", study.net, study.training()),
        mode: study.modes(),
        methods: study.methods.len(),
        rates,
        variants: study.variants.len(),
        seeds: study.count(),
        test_images: study.test_images,
        dense: study.dense,
        run: study.run.clone(),
    }
}

/// `90.50 ± 0.71`, or the mean alone.
pub(super) fn mean_words(stat: Stat) -> String {
    match stat.std {
        Some(std) => format!("{:.2} ± {std:.2}", stat.mean),
        None => format!("{:.2}", stat.mean),
    }
}

fn facts_line(study: &Study) -> String {
    let spread = match study.seeds {
        0 | 1 => "; one seed, so there is no deviation and no interval",
        _ => "; mean ± sample standard deviation over seeds",
    };
    let dense = study.dense.map(|dense| format!("; dense net {} %", mean_words(dense))).unwrap_or_default();
    format!(
        "{}{}, {}, {} test images, {}{spread}{dense}.",
        study.net,
        study.training(),
        study.modes(),
        grouped(study.test_images),
        study.n()
    )
}

/// Top-1 at the last measured phase, method × keep rate: the result at a glance. For studies without variants.
fn result(study: &Study, main: &Sheet) -> Markup {
    let Some(phase) = study.phases().pop().filter(|_| study.variants.is_empty()) else { return html! {} };
    let mut rates = study.keep_rates.clone();
    rates.sort_by(|a, b| b.total_cmp(a));
    let group =
        |method: usize, rate: f64| study.groups.iter().find(|g| g.method == method && g.keep_rate == rate);
    let best = |rate: f64| {
        let means = study.groups.iter().filter(|g| g.keep_rate == rate).filter_map(|g| g.at(phase));
        means.map(|stat| stat.mean).fold(f64::NEG_INFINITY, f64::max)
    };
    let caption = format!("Top-1, %, {}, at each keep rate", explore::phase_words(phase));
    html! {
        figure.table {
            div.scroll tabindex="0" role="region" aria-label=(caption) {
                table.result {
                    caption { span { (caption) "; the highest mean of a rate is bold, which says nothing about noise (see the differences)" } }
                    thead { tr { th scope="col" { "method" } @for rate in &rates { th.number scope="col" { (rate) } } } }
                    tbody {
                        @for (index, method) in study.methods.iter().enumerate() {
                            tr {
                                th scope="row" { (method.label) }
                                @for &rate in &rates {
                                    @let group = group(index, rate);
                                    @let link = first_cell(study, main, &method.label, rate);
                                    td.number {
                                        @match group.and_then(|group| group.at(phase)) {
                                            Some(stat) => {
                                                @let is_best = stat.mean >= best(rate);
                                                a href=[link] class=[is_best.then_some("best")] { (mean_words(stat)) }
                                            }
                                            None => { @if group.is_some_and(|group| group.diverged > 0) { "diverged" } @else { "not run" } }
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The link to the first cell of a method at a keep rate.
fn first_cell(study: &Study, main: &Sheet, method: &str, rate: f64) -> Option<String> {
    let is_it = |&row: &usize| {
        let own: Option<f64> = main.text(row, "keep_rate").and_then(|text| text.parse().ok());
        main.text(row, "method") == Some(method) && own == Some(rate)
    };
    main.rows().find(is_it).and_then(|row| Some(cell_link(&study.table, main.text(row, "cell")?)))
}

/// The address of a cell on the page.
fn cell_link(table: &str, cell: &str) -> String {
    format!("#cell/{}/{}", encoded(table), encoded(cell))
}

/// Percent-encodes all but letters, digits, `-`, `_` and `.`.
pub(super) fn encoded(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    text.bytes().map(|b| if is_plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

fn explorer_markup(study: &Study, explorer: &Value) -> Markup {
    let name = &study.table;
    let choice = |id: &str, label: &str, options: Vec<(String, String)>, last: bool| {
        let count = options.len();
        html! {
            label { (label) " "
                select data-choose=(id) {
                    @for (at, (key, title)) in options.iter().enumerate() {
                        option value=(key) selected[last && at + 1 == count] { (title) }
                    }
                }
            }
        }
    };
    let titled = |list: &str| -> Vec<(String, String)> {
        let text = |item: &Value, key: &str| item[key].as_str().unwrap_or_default().to_owned();
        explorer[list]
            .as_array()
            .into_iter()
            .flatten()
            .map(|item| (text(item, "key"), text(item, "title")))
            .collect()
    };
    let x = [("flops", "FLOPs kept"), ("params", "parameters kept"), ("keep_rate", "keep rate")];
    let x = x.map(|(key, title)| (key.to_owned(), title.to_owned())).to_vec();
    let variants: Vec<(String, String)> =
        study.variants.iter().map(|name| (name.clone(), name.clone())).collect();
    let spread = if study.seeds < 2 {
        "One seed: no band."
    } else {
        "Band: ± 1 sample standard deviation. Faint: single seeds."
    };
    html! {
        figure.explorer data-explorer=(name) {
            div.controls role="group" aria-label="What the chart shows" {
                (choice("measure", "Measure", titled("measures"), false))
                (choice("phase", "Nets", titled("phases"), true))
                (choice("x", "Against", x, false))
                @if !variants.is_empty() { (choice("variant", "Variant", variants, false)) }
            }
            div.legend data-legend=(name) role="group" aria-label="Methods: press to hide or show in all charts of this study" {}
            div.plot role="group" aria-label=(format!("Chart of {name}")) { p.no-vega { "The chart needs Vega beside this page: " code { "make report" } " writes it." } }
            figcaption aria-live="polite" {
                span.showing {} " " (spread) " Click a point to open its cell; the tables below lead there by keyboard."
            }
        }
    }
}

/// A drawn figure with its title and caption as text.
pub(super) fn figure_markup(figure: &Figure, pictures: &str) -> Markup {
    html! {
        figure.drawn id=(format!("figure-{}", figure.name)) {
            h5 { (figure.title) }
            div.plot.scroll tabindex="0" role="region" aria-label=(figure.title) data-figure=(figure.name)
                data-picture=(format!("{pictures}/{}.svg", figure.name)) {
                p.no-vega { "The figure needs Vega beside this page: " code { "make report" } " writes it." }
            }
            figcaption { (figure.caption) }
        }
    }
}

/// Means, differences, agreement with the paper's order, cells.
fn own_tables(tables: &mut Tables, study: &Study, main: &Sheet) -> Result<Markup, FigureError> {
    let name = &study.table;
    let of_method = |sheet: &Sheet, row: usize| -> Option<String> {
        let is_it = |&other: &usize| {
            ["method", "keep_rate", VARIANT]
                .iter()
                .all(|column| main.text(other, column) == sheet.text(row, column))
        };
        main.rows().find(is_it).and_then(|found| Some(cell_link(name, main.text(found, "cell")?)))
    };
    let own_cell = |row: usize| main.text(row, "cell").map(|cell| cell_link(name, cell));
    let mut parts = Vec::new();
    let beside: [(&str, &str, &[Column]); 4] = [
        ("-summary", "Means over seeds", &columns::MEANS),
        (DRAWS, "Spread over draws of the calibration sample", &columns::DRAWS),
        ("-differences", "Paired differences between methods", &columns::DIFFERENCES),
        ("-tau", "Agreement with the paper\u{2019}s order of methods", &columns::TAU),
    ];
    for (suffix, caption, columns) in beside {
        let table_name = format!("{name}{suffix}");
        let Some(sheet) = tables.sheet(&table_name, &["run"])? else { continue };
        study.check_run(&sheet)?;
        let rows: Vec<usize> = sheet.rows().collect();
        let notes = notes(tables, &table_name)?;
        let file = format!("{table_name}.csv");
        let frame = Frame {
            id: &table_name,
            caption,
            file: &file,
            notes: &notes,
            link: &|row| of_method(&sheet, row),
        };
        parts.push((caption, rows.len(), table(&sheet, &rows, columns, &frame)?));
    }
    let rows: Vec<usize> = main.rows().collect();
    let notes = notes(tables, name)?;
    let (caption, file) = ("Every cell: a method at a keep rate with a seed", format!("{name}.csv"));
    let frame = Frame { id: name, caption, file: &file, notes: &notes, link: &own_cell };
    parts.push((caption, rows.len(), table(main, &rows, &columns::CELLS, &frame)?));
    Ok(html! {
        @for (caption, rows, markup) in parts {
            details.tables { summary { (caption) " " span.count { (rows) @if rows == 1 { " row" } @else { " rows" } } } (markup) }
        }
    })
}

/// The sentences at the end of a table's Markdown file; none where it is missing.
pub(super) fn notes(tables: &mut Tables, name: &str) -> Result<Vec<String>, FigureError> {
    let Some(bytes) = tables.bytes(name, "md")? else { return Ok(Vec::new()) };
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Ok(text.lines().filter_map(|line| line.strip_prefix("- ")).map(str::to_owned).collect())
}

fn checklist(tables: &mut Tables, name: &str, sheet: &Sheet) -> Result<Markup, FigureError> {
    let rows: Vec<usize> = sheet.rows().collect();
    let id = format!("{name}{CHECKLIST}");
    let notes = notes(tables, &id)?;
    let file = format!("{id}.csv");
    let caption = format!("Checklist of {name}");
    let frame = Frame { id: &id, caption: &caption, file: &file, notes: &notes, link: &|_| None };
    if columns::CHECKLIST[..3].iter().all(|column| sheet.has(column.name)) {
        return table(sheet, &rows, &columns::CHECKLIST, &frame);
    }
    // Another layout than the one this page knows: all of it, as it is.
    table(sheet, &rows, &all_columns(sheet), &frame)
}

/// Every column under its own name, as it is written.
pub(super) fn all_columns(sheet: &Sheet) -> Vec<Column<'_>> {
    let named = sheet.columns().into_iter().filter(|name| !["run", "experiment"].contains(name));
    named.map(|name| column(name, name, Kind::Text)).collect()
}

/// What limits the conclusions of a study, from its tables.
fn limits(study: &Study, main: &Sheet) -> Vec<String> {
    let name = &study.table;
    let mut limits = Vec::new();
    match study.seeds {
        0 | 1 => limits.push(format!("`{name}` has one seed: no deviation, no interval; no difference in it is shown.")),
        seeds if seeds < 5 => limits.push(format!(
            "`{name}` has {seeds} seeds: intervals are wide, and only differences larger than the column \u{201c}smallest shown\u{201d} could be \
             shown."
        )),
        _ => {}
    }
    for (status, words) in [("diverged", "diverged and has no result"), ("not-run", "was not run")] {
        let (mut all, mut cells) = (Vec::new(), Vec::new());
        for row in main.rows() {
            let rate = main.text(row, "keep_rate").unwrap_or_default();
            let cell = format!("{} at {rate}", main.label(row, "method"));
            if main.text(row, "status") == Some(status) {
                index_of(&mut cells, cell.clone());
            }
            index_of(&mut all, cell);
        }
        if all.len() > 1 && cells.len() == all.len() {
            limits
                .push(format!("In `{name}` at least one seed {words}, at every keep rate of every method."));
        } else if !cells.is_empty() {
            limits.push(format!("In `{name}` at least one seed {words}: {}.", cells.join("; ")));
        }
    }
    limits
}

/// A list of sentences.
pub(super) fn sentences(list: &[String]) -> Markup {
    html! { ul { @for sentence in list { li { (code(sentence)) } } } }
}

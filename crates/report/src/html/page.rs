//! The page: question, set-up, studies, ablations, published numbers, checklist, limits.

use std::collections::BTreeMap;

use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::{Value, json};

use super::embed::script_text;
use super::study::{Section, encoded, figure_markup, mean_words, sentences};
use super::{CELLS, Report, Source, VEGA, plots, published};
use crate::figures::Figure;
use crate::figures::style;
use crate::tables::grouped;

const STYLE: &str = include_str!("assets/report.css");
const SCRIPT: &str = include_str!("assets/report.js");

/// The figure that belongs to no study.
const LATENCY: &str = "latency-flops";

/// What the page shows.
pub(super) struct Content<'a> {
    pub(super) sections: &'a [Section],
    pub(super) beside: &'a [published::Section],
    pub(super) figures: &'a [Figure],
    pub(super) report: &'a Report,
    pub(super) source: &'a Source<'a>,
}

impl Content<'_> {
    fn studies(&self) -> impl Iterator<Item = &Section> {
        self.sections.iter().filter(|section| !section.is_ablation)
    }

    fn ablations(&self) -> impl Iterator<Item = &Section> {
        self.sections.iter().filter(|section| section.is_ablation)
    }

    /// Figures that stand beside published numbers: those with a published panel, and latencies.
    fn compared(&self) -> Vec<&Figure> {
        let is_compared = |figure: &&Figure| {
            let name = &figure.name;
            let own = self.sections.iter().any(|section| {
                name.strip_prefix(&section.table).is_some_and(|rest| rest == "-accuracy-flops")
            });
            (own && figure.tables.len() > 1 && figure.caption.contains(" Published: ")) || name == LATENCY
        };
        let mut figures: Vec<&Figure> = self.figures.iter().filter(is_compared).collect();
        figures.sort_by_key(|figure| figure.name == LATENCY);
        figures
    }
}

/// The text of the page.
pub(super) fn page(content: &Content<'_>) -> String {
    let compared = content.compared();
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "thinet-rs: filter pruning, measured again" }
                // An icon that is no file: browsers report a missing one.
                link rel="icon" href="data:,";
                style { (PreEscaped(STYLE)) }
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                (header(content))
                main id="main" tabindex="-1" {
                    (question())
                    (set_up(content))
                    section id="studies" aria-labelledby="studies-title" {
                        h2 id="studies-title" { "Studies" }
                        @for section in content.studies() { (section.markup) }
                        @if content.studies().next().is_none() { p { "No study was run." } }
                    }
                    @if content.ablations().next().is_some() {
                        section id="ablations" aria-labelledby="ablations-title" {
                            h2 id="ablations-title" { "Ablations" }
                            @for section in content.ablations() { (section.markup) }
                        }
                    }
                    (beside(content, &compared))
                    @if content.sections.iter().any(|section| section.checklist.is_some()) {
                        section id="checklist" aria-labelledby="checklist-title" {
                            h2 id="checklist-title" { "Checklist" }
                            p { "What a pruning study should report, answered by the program from its own records." }
                            @for section in content.sections {
                                @if let Some(checklist) = &section.checklist { h3 { (section.title) } (checklist) }
                            }
                        }
                    }
                    (limits(content))
                }
                (dialog())
                script type="application/json" id="data" { (PreEscaped(script_text(&data(content, &compared)))) }
                script src=(VEGA) {}
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    page.into_string() + "\n"
}

/// All that the script draws.
fn data(content: &Content<'_>, compared: &[&Figure]) -> Value {
    let mut figures: BTreeMap<&str, Value> = BTreeMap::new();
    let (mut explorers, mut methods, mut cells) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for section in content.sections {
        let table = section.table.as_str();
        for (name, spec) in &section.plots {
            figures.insert(name, json!({ "spec": spec, "study": table }));
        }
        let own = section.explorer.as_ref().map(|explorer| &explorer["spec"]);
        let shown = own.into_iter().chain(section.plots.values()).map(plots::methods);
        let first = shown.into_iter().find(|methods| methods.as_array().is_some_and(|list| !list.is_empty()));
        methods.insert(table, first.unwrap_or_else(|| json!([])));
        cells.insert(table, format!("{CELLS}/{}.js", encoded(table)));
        if let Some(explorer) = &section.explorer {
            explorers.insert(table, explorer);
        }
    }
    for figure in compared {
        let spec = plots::interactive(figure);
        let own = plots::methods(&spec);
        methods.insert(&figure.name, own);
        figures.insert(&figure.name, json!({ "spec": spec, "study": figure.name }));
    }
    json!({
        "config": style::config(), "ink": style::INK, "reference": style::REFERENCE, "figures": figures, "explorers": explorers,
        "methods": methods, "cells": cells,
    })
}

fn header(content: &Content<'_>) -> Markup {
    html! {
        header.top {
            div.inner {
                p.name { a href="#main" { "thinet-rs" } }
                nav aria-label="Sections" {
                    a href="#question" { "Question" } a href="#set-up" { "Set-up" } a href="#studies" { "Studies" }
                    @if content.ablations().next().is_some() { a href="#ablations" { "Ablations" } }
                    @if !content.beside.is_empty() { a href="#published" { "Published" } }
                    @if content.sections.iter().any(|section| section.checklist.is_some()) { a href="#checklist" { "Checklist" } }
                    a href="#limits" { "Limits" }
                }
                label.theme { span.unseen { "Colours " }
                    select id="theme" {
                        option value="auto" { "Auto" } option value="light" { "Light" } option value="dark" { "Dark" }
                    }
                }
            }
        }
    }
}

fn question() -> Markup {
    html! {
        section id="question" aria-labelledby="question-title" {
            h1 id="question-title" { "Which filters can a convolutional network lose?" }
            p.lead {
                "ThiNet (Luo, Wu and Lin, ICCV 2017) removes the filters whose output the next layer misses least. Here it is measured again \
                 beside the methods it was compared with, with the same nets, seeds, schedules and code for all of them, so that what differs \
                 is the choice of filters alone."
            }
            p {
                "Three questions: how much accuracy does each method keep " em { "before" } " anything is tuned; what is left of the \
                 difference " em { "after" } " tuning; and is it larger than the noise of seeds? Every number on this page comes from a \
                 written table, named below it."
            }
        }
    }
}

fn set_up(content: &Content<'_>) -> Markup {
    let sections = content.sections;
    html! {
        section id="set-up" aria-labelledby="set-up-title" {
            h2 id="set-up-title" { "Set-up" }
            p {
                "A " b { "cell" } " is one net: a method at a keep rate with a seed. The " b { "keep rate" } " is the fraction of channels that each \
                 pruned layer keeps; FLOPs and parameters kept follow from it. A seed has a dense net and calibration images of its own, and \
                 all methods cut that same net. Accuracies are per cent of the test images."
            }
            @if !sections.is_empty() {
                figure.table {
                    div.scroll tabindex="0" role="region" aria-label="Studies of this report" {
                        table.studies {
                            caption { span { "Studies of this report" } }
                            thead { tr {
                                th scope="col" { "study" } th scope="col" { "data set" } th scope="col" { "net" } th scope="col" { "cut" }
                                th scope="col" { "keep rates" } th.number scope="col" { "methods" } th.number scope="col" { "variants" }
                                th.number scope="col" { "seeds" } th.number scope="col" { "test images" }
                                th.number scope="col" { "dense top-1, %" } th scope="col" { "run" }
                            } }
                            tbody { @for section in sections { tr {
                                @let facts = &section.facts;
                                th scope="row" { a href=(format!("#study-{}", section.table)) { (section.table) } }
                                td { (facts.dataset) } td { (facts.net) } td { (facts.mode) } td { (facts.rates) }
                                td.number { (facts.methods) }
                                td.number { @if facts.variants > 0 { (facts.variants) } @else { "\u{2013}" } }
                                td.number { (facts.seeds) } td.number { (grouped(facts.test_images)) }
                                td.number { (facts.dense.map_or_else(|| "\u{2013}".to_owned(), mean_words)) }
                                td { code { (facts.run) } }
                            } } }
                        }
                    }
                }
            }
        }
    }
}

fn beside(content: &Content<'_>, compared: &[&Figure]) -> Markup {
    if content.beside.is_empty() && compared.is_empty() {
        return html! {};
    }
    html! {
        section id="published" aria-labelledby="published-title" {
            h2 id="published-title" { "Ours beside published" }
            p {
                "Published numbers are shown as they were printed, with their source. Other data sets, other nets and other baselines than \
                 ours: a description, not a target. What was not run here says so."
            }
            @for figure in compared {
                @if figure.name != LATENCY {
                    div.legend data-legend=(figure.name) role="group" aria-label="Methods: press to hide or show" {}
                }
                (figure_markup(figure, content.source.pictures))
            }
            @for section in content.beside {
                details.tables {
                    summary { (section.title) " " span.count { (section.rows) " rows" } }
                    (section.markup)
                }
            }
        }
    }
}

fn limits(content: &Content<'_>) -> Markup {
    let report = content.report;
    let own: Vec<String> = content.sections.iter().flat_map(|section| section.limits.clone()).collect();
    let skipped: Vec<String> =
        report.skipped.iter().map(|skipped| format!("{}: {}.", skipped.name, skipped.why)).collect();
    let failed: Vec<String> = report.failed.iter().map(ToString::to_string).collect();
    let sets: std::collections::BTreeSet<&str> =
        content.sections.iter().map(|section| section.facts.dataset.as_str()).collect();
    html! {
        section id="limits" aria-labelledby="limits-title" {
            h2 id="limits-title" { "Limits" }
            ul {
                @if !sets.is_empty() {
                    li { "Measured on " (sets.into_iter().collect::<Vec<_>>().join(", ")) " with the nets named in the set-up; whether the order \
                        of methods is the same on other data and nets is not shown here." }
                }
                li { "Intervals hold the noise of seeds (weights, order of images, calibration images). They do not hold that of a recipe: another \
                    learning rate or a longer tuning may change the order." }
                li { "Highest means are not findings. A finding is a difference whose verdict is above or below after Holm\u{2019}s correction; \
                    \u{201c}no difference shown\u{201d} is not \u{201c}no difference\u{201d}." }
                li { "FLOPs are counted, not timed; see the latencies for how far time follows them." }
            }
            (sentences(&own))
            @if !failed.is_empty() {
                h3 { "Tables that cannot be shown" }
                div.failed { (sentences(&failed)) }
            }
            @if !report.changed.is_empty() {
                h3 { "Tables that have changed since they were written" }
                div.failed { (sentences(&report.changed)) }
            }
            @if !skipped.is_empty() {
                details { summary { "Figures that were not drawn, and why" } (sentences(&skipped)) }
            }
        }
    }
}

fn dialog() -> Markup {
    html! {
        dialog id="cell" aria-labelledby="cell-title" {
            div.bar {
                h2 id="cell-title" { "Cell" }
                button type="button" id="cell-close" { "Close" }
            }
            div id="cell-body" {}
        }
        div id="live" role="status" aria-live="polite" class="unseen" {}
    }
}

//! Tables that compare whole studies with the paper's rows, from the shipped specs.

use std::path::PathBuf;

use thinet_harness::study::{Options, ResolvedStudy, not_run};
use thinet_report::records::{Metric, Phase, Row, Status, StudyRecord, Unfit};
use thinet_report::tables::{NOT_RUN, PaperStudy, Table, paper, paper_run};

fn resolved(name: &str) -> ResolvedStudy {
    resolved_of("imagenet", name)
}

fn resolved_of(folder: &str, name: &str) -> ResolvedStudy {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../experiments").join(folder).join(name);
    ResolvedStudy::without_data(&file, &Options::default()).unwrap().unwrap()
}

fn whole_net(phase: Phase, top1: f64, top5: f64) -> Vec<Row> {
    let row = |metric, value| Row { layer: String::new(), phase, metric, value };
    vec![row(Metric::Top1, top1), row(Metric::Top5, top5), row(Metric::Loss, 1.0)]
}

#[test]
fn ours_are_beside_the_published_rows_and_the_rest_is_marked_as_not_run() {
    let (conv, twins) = (resolved("vgg16-conv.toml"), resolved("vgg16-conv-twins.toml"));
    let (mut measured, missing) = (not_run(&conv), not_run(&twins));
    measured.run = "0123456789ab".to_owned();
    measured.dense[0].id = "dense-1".to_owned();
    measured.dense[0].status = Status::Done;
    measured.dense[0].rows = whole_net(Phase::Dense, 71.25, 90.0);
    measured.cells[0].status = Status::Done;
    measured.cells[0].rows = whole_net(Phase::AfterFineTune, 69.5, 89.25);
    let studies = [conv.paper_study(&measured, true), twins.paper_study(&missing, false)];
    let table = paper("imagenet-vgg16", &studies).unwrap();
    insta::assert_snapshot!(table.markdown());
    let column = |name: &str| table.frame.column(name).unwrap().f64().unwrap().iter().collect::<Vec<_>>();
    // The dense net, ThiNet, three twins and the control; the twins' dense net is the same one.
    assert_eq!(table.frame.height(), 6);
    assert_eq!(column("top1_drop")[..3], [None, Some(1.75), None]);
    let published = column("published_top1_drop")[1].unwrap();
    assert!((published - 1.7).abs() < 1e-9, "{published}");
    assert_ne!(paper_run(&studies), NOT_RUN);
    assert_eq!(paper_run(&studies[1..]), NOT_RUN);
}

/// Records of studies with dense nets at 70 % and cells at 68 %.
fn measured(studies_of: &[ResolvedStudy], images: u64) -> Vec<StudyRecord> {
    let of = |resolved: &ResolvedStudy| {
        let mut study = not_run(resolved);
        study.run = resolved.spec.name.clone();
        for dense in &mut study.dense {
            (dense.id, dense.status) = (format!("dense of {}", resolved.spec.name), Status::Done);
            (dense.rows, dense.test_images) = (whole_net(Phase::Dense, 70.0, 90.0), Some(images));
        }
        for cell in &mut study.cells {
            cell.status = Status::Done;
            (cell.rows, cell.test_images) = (whole_net(Phase::AfterFineTune, 68.0, 88.0), Some(images));
        }
        study
    };
    studies_of.iter().map(of).collect()
}

fn table_of(names: &[&str], images: u64) -> Table {
    let studies_of: Vec<ResolvedStudy> = names.iter().map(|name| resolved(name)).collect();
    let records = measured(&studies_of, images);
    let studies: Vec<PaperStudy<'_>> =
        studies_of.iter().zip(&records).map(|(resolved, study)| resolved.paper_study(study, true)).collect();
    paper("x", &studies).unwrap()
}

fn drops(table: &Table) -> Vec<(String, Option<f64>)> {
    let models = table.frame.column("model").unwrap().str().unwrap();
    let drops = table.frame.column("top1_drop").unwrap().f64().unwrap();
    models.iter().zip(drops.iter()).map(|(m, d)| (m.unwrap_or("none").to_owned(), d)).collect()
}

#[test]
fn a_drop_is_never_against_another_net_than_the_published_one() {
    // The dense net of both is VGG-16-GAP; the published drops are against VGG-16.
    let alone = table_of(&["vgg16-gap.toml", "vgg16-tiny.toml"], 50_000);
    let model = |name: &str, drop| (name.to_owned(), drop);
    let expected =
        [model("none", None), model("thinet-gap", None), model("none", None), model("thinet-tiny", None)];
    assert_eq!(drops(&alone), expected);
    let text = alone.markdown();
    assert!(text.contains("Drop of thinet-gap: the published one is against vgg16,"), "{text}");

    // An own VGG-16 is there under ThiNet-Tiny's protocol, and none under ThiNet-GAP's.
    let with_vgg16 = table_of(&["vgg16-conv.toml", "vgg16-gap.toml", "vgg16-tiny.toml"], 50_000);
    let found = drops(&with_vgg16);
    assert_eq!(found[1], model("thinet-conv", Some(2.0)));
    assert_eq!((&found[3], &found[5]), (&model("thinet-gap", None), &model("thinet-tiny", Some(2.0))));
    let against = with_vgg16.frame.column("drop_baseline").unwrap().str().unwrap();
    assert_eq!([1, 3, 5].map(|row| against.get(row)), [Some("vgg16"), None, Some("vgg16")]);
}

#[test]
fn a_row_of_an_unfit_dense_net_is_marked() {
    let conv = resolved("vgg16-conv.toml");
    let mut study = not_run(&conv);
    study.dense[0].status = Status::Done;
    study.dense[0].rows = whole_net(Phase::Dense, 0.125, 0.5);
    study.dense[0].unfit = Some(Unfit::NearChance { top1: 0.125, chance: 0.1 });
    let table = paper("imagenet-vgg16", &[conv.paper_study(&study, true)]).unwrap();
    assert_eq!(table.grids[0].rows[1][6..8], ["dense net failed"; 2]);
    let top1: Vec<_> = table.frame.column("top1").unwrap().f64().unwrap().iter().collect();
    assert_eq!(top1[1], None);
}

#[test]
fn nothing_published_is_beside_an_unpublished_net() {
    let table = table_of(&["resnet50-caffe.toml", "resnet50-torchvision.toml"], 50_000);
    let strides = table.frame.column("stride").unwrap().str().unwrap();
    let published = table.frame.column("published_top1").unwrap().f64().unwrap();
    for (stride, published) in strides.iter().zip(published.iter()) {
        assert_eq!(published.is_some(), stride == Some("1x1"), "{stride:?}");
    }
    let strides: Vec<_> = strides.iter().flatten().collect();
    assert_eq!(strides, [["1x1"; 7], ["3x3"; 7]].concat());
    // Each pruned net beside its own study's ResNet-50, which is the published baseline as well.
    let of_method = ["thinet-70", "thinet-50", "thinet-30"].map(|model| (model.to_owned(), Some(2.0)));
    let of_study = [vec![("resnet50".to_owned(), None)], of_method.to_vec(), of_method.to_vec()].concat();
    assert_eq!(drops(&table), [of_study.clone(), of_study].concat());
}

#[test]
fn a_drop_is_against_the_dense_net_of_the_same_seed() {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../experiments/imagenet/vgg16-conv.toml");
    let options = Options { seeds: Some(2), ..Options::default() };
    let conv = ResolvedStudy::without_data(&file, &options).unwrap().unwrap();
    let mut study = measured(std::slice::from_ref(&conv), 50_000).remove(0);
    study.dense[1].rows = whole_net(Phase::Dense, 71.0, 90.0);
    let table = paper("x", &[conv.paper_study(&study, true)]).unwrap();
    let drops: Vec<_> = drops(&table).into_iter().map(|(_, drop)| drop).collect();
    assert_eq!(drops, [None, None, Some(2.0), Some(3.0)]);
    assert!(!table.markdown().contains("Unverified"), "all that is beside it was verified");
}

#[test]
fn a_number_of_images_is_given_only_if_it_was_counted() {
    let text = |images| table_of(&["vgg16-conv.toml"], images).markdown();
    assert!(text(50_000).contains("per cent of the 50,000 test images,"));
    assert!(text(49_997).contains("per cent of the 49,997 test images,"));
    assert!(text(49_997).contains(" 49,997 |"));
    let conv = resolved("vgg16-conv.toml");
    let nothing = not_run(&conv);
    let table = paper("x", &[conv.paper_study(&nothing, false)]).unwrap();
    assert!(!table.markdown().contains("50,000"));
}

/// The studies of `cifar10-published`, by name.
fn reruns() -> Vec<ResolvedStudy> {
    let names = ["resnet56-distiller-68m", "resnet56-distiller-79m", "resnet56-wang", "vgg16-li"];
    names.iter().map(|name| resolved_of("cifar10", &format!("cifar10-{name}.toml"))).collect()
}

/// The table of these studies with records, or as not run.
fn table_of_reruns(studies_of: &[ResolvedStudy], records: &[StudyRecord], is_run: bool) -> Table {
    let studies: Vec<PaperStudy<'_>> =
        studies_of.iter().zip(records).map(|(resolved, study)| resolved.paper_study(study, is_run)).collect();
    paper("cifar10-published", &studies).unwrap()
}

#[test]
fn other_peoples_numbers_stand_beside_ours_that_were_not_run() {
    let studies_of = reruns();
    let records: Vec<StudyRecord> = studies_of.iter().map(not_run).collect();
    let table = table_of_reruns(&studies_of, &records, false);
    insta::assert_snapshot!(table.markdown());
    // 4 and 4 of Distiller's widths, 5 methods at 4 rates, 5 of VGG-16 with L1 in two publications, 6 of nets that are not ours.
    assert_eq!(table.frame.height(), 4 + 4 + 20 + 6 + 6);
    let published = table.frame.column("published_top1").unwrap().f64().unwrap();
    let rows_in_data = published.iter().flatten().count();
    assert_eq!(rows_in_data, 2 + 2 + 8 + 3 + 6);
    assert_eq!(table.frame.column("top1_mean").unwrap().f64().unwrap().iter().flatten().count(), 0);
    // Multiply-adds of Distiller's rows as they are published, to the last one.
    let text = |name: &str| table.frame.column(name).unwrap().str().unwrap().clone();
    let (sizes, macs) = (text("published_size"), table.frame.column("macs").unwrap().u64().unwrap().clone());
    let mut compared = 0;
    for (size, macs) in sizes.iter().zip(macs.iter()) {
        if let Some(count) = size.and_then(|size| size.strip_suffix(" multiply-adds")) {
            assert_eq!(count.replace(',', ""), macs.unwrap().to_string());
            compared += 1;
        }
    }
    assert_eq!(compared, 4);
}

#[test]
fn drops_of_ours_and_of_a_publication_are_each_against_their_own_dense_net() {
    let studies_of = reruns();
    let mut records = measured(&studies_of, 10_000);
    // Seeds differ by two points, so that a difference of means would be another drop.
    for study in &mut records {
        let shifted = |seed: u64| 90.0 + 2.0 * seed as f64;
        for dense in &mut study.dense {
            dense.rows = whole_net(Phase::Dense, shifted(dense.seed), 99.0);
        }
        for cell in &mut study.cells {
            cell.rows = whole_net(Phase::AfterFineTune, shifted(cell.seed) - 1.5, 99.0);
        }
        // One cell of each study failed.
        study.cells[0].status = Status::NotRun;
        study.cells[0].rows.clear();
    }
    let table = table_of_reruns(&studies_of, &records, true);
    let values = |name: &str| table.frame.column(name).unwrap().f64().unwrap().iter().collect::<Vec<_>>();
    let ours = 34;
    assert_eq!(values("top1_drop_mean")[..ours], vec![Some(1.5); ours][..]);
    assert_eq!(values("dense_top1_mean")[..ours], vec![Some(92.0); ours][..]);
    assert_eq!(values("top1_mean")[0], Some(91.5));
    assert_eq!(values("top1_mean")[ours..], [None; 6]);
    let n = table.frame.column("n").unwrap().u64().unwrap().clone();
    assert_eq!([n.get(0), n.get(1), n.get(ours)], [Some(2), Some(3), None]);
    for (place, row) in values("published_top1_drop").iter().zip(values("published_top1")).enumerate() {
        let ((drop, top1), dense) = (row, values("published_dense_top1")[place]);
        assert_eq!(*drop, dense.zip(top1).map(|(dense, top1)| dense - top1), "row {place}");
    }
    let text = table.markdown();
    assert!(text.contains("per cent of the 10,000 test images;"), "{text}");
    assert!(text.contains("n = 2, 1 not run"), "{text}");
}

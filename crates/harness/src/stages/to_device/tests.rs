//! The way of bytes against the loader's values, to the bit, on the CPU.

use thinet_data::{Augment, Loader, MemoryDataset, shuffled};

use super::*;

const IMAGES: usize = 23;

/// Every byte value is there.
fn set(shape: [usize; 3], is_large: bool) -> Arc<dyn Dataset> {
    let shape = if is_large { [shape[0], 120, 110] } else { shape };
    let pixels = (0..IMAGES * shape.iter().product::<usize>()).map(|i| (i * 31 + i / 256) as u8).collect();
    let labels = (0..IMAGES).map(|i| i % 5).collect();
    Arc::new(MemoryDataset::new("set", 5, shape, pixels, labels).unwrap())
}

/// The normalisations of Caffe and torchvision, and one of grey images.
fn normalisations() -> [Normalisation; 3] {
    let torchvision = [vec![0.485, 0.456, 0.406], vec![0.229, 0.224, 0.225]];
    let [mean, std] = torchvision;
    [
        Normalisation { mean, std, order: ChannelOrder::Rgb, range: 1.0 },
        Normalisation {
            mean: vec![103.939, 116.779, 123.68],
            std: vec![1.0; 3],
            order: ChannelOrder::Bgr,
            range: 255.0,
        },
        Normalisation { mean: vec![0.286], std: vec![0.353], order: ChannelOrder::Rgb, range: 1.0 },
    ]
}

fn transforms(normalisation: &Normalisation) -> Vec<(Transform, Option<Seed>)> {
    let transform = |pad, crop, crop_padding, mirror| Transform {
        pad,
        crop,
        normalisation: normalisation.clone(),
        augment: Augment { crop_padding, mirror, random_crop: false },
    };
    let seed = Some(Seed::root(4).child("augment").index(2));
    vec![
        (transform(0, None, 0, false), None),
        (transform(2, None, 0, false), None),
        (transform(0, Some(5), 0, false), None),
        (transform(0, None, 4, true), seed),
        (transform(2, Some(9), 3, true), seed),
        (transform(1, Some(4), 0, true), seed),
        // Wider than the image: whole rows and columns of zeros, some inputs without a pixel.
        (transform(3, None, 12, true), seed),
    ]
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    Vec::<f32>::try_from(tensor.flatten(0, -1)).unwrap().into_iter().map(f32::to_bits).collect()
}

#[test]
fn bytes_become_the_loaders_values_to_the_bit_from_a_loader_and_from_a_set_on_the_device() {
    for normalisation in normalisations() {
        for is_large in [false, true] {
            let data = set([normalisation.mean.len(), 8, 11], is_large);
            let way = ToDevice::new(Device::Cpu, &normalisation, &[&data]).unwrap();
            for (transform, seed) in transforms(&normalisation) {
                for drop_last in [false, true] {
                    let order = shuffled(IMAGES, Seed::root(1));
                    let options = LoaderOptions { batch: 7, drop_last, threads: 2, prefetch: 2 };
                    let values = Loader::new(data.clone(), order.clone(), &transform, seed, options).unwrap();
                    let buffer = |length| ToDevice::buffer(Device::Cpu, length);
                    let bytes = Loader::bytes(data.clone(), order.clone(), &transform, seed, options, buffer)
                        .unwrap();
                    let mut pass = way.pass(&data, &order, &transform, seed, &options).unwrap();
                    assert_eq!(pass.is_none(), is_large);
                    let mut batches = 0;
                    for (values, bytes) in values.zip(bytes) {
                        let (values, bytes) = (values.unwrap(), bytes.unwrap());
                        let expected: Vec<u32> = values.images.iter().map(|value| value.to_bits()).collect();
                        let found = way.images(&bytes).unwrap();
                        assert_eq!(found.size(), values.shape.map(|n| n as i64));
                        assert!(bits(&found) == expected, "{transform:?}");
                        let labels = way.labels(&bytes.labels).unwrap();
                        assert_eq!(Vec::<i64>::try_from(&labels).unwrap(), values.labels);
                        if let Some(pass) = &mut pass {
                            let (indices, labels) = pass.next().unwrap();
                            let cut = way.cut(pass, &indices).unwrap();
                            assert_eq!(
                                (indices, labels, cut.size()),
                                (values.indices, values.labels, found.size())
                            );
                            assert!(bits(&cut) == expected, "{transform:?}");
                        }
                        batches += 1;
                    }
                    assert_eq!(batches, if drop_last { 3 } else { 4 });
                    assert!(pass.is_none_or(|mut pass| pass.next().is_none()));
                }
            }
        }
    }
}

#[test]
fn a_set_is_put_on_the_device_once_and_only_if_it_is_small_and_known() {
    let [normalisation, ..] = normalisations();
    let [small, other, large] = [set([3, 8, 8], false), set([3, 8, 8], false), set([3, 8, 8], true)];
    let way = ToDevice::new(Device::Cpu, &normalisation, &[&small, &large, &small]).unwrap();
    assert_eq!(way.sets.len(), 1);
    let (transform, _) = transforms(&normalisation).remove(0);
    let options = LoaderOptions { batch: 4, drop_last: false, threads: 0, prefetch: 0 };
    let pass = |data: &Arc<dyn Dataset>, order: &[usize]| {
        way.pass(data, order, &transform, None, &options).unwrap().map(|pass| pass.bytes.data_ptr())
    };
    assert!(pass(&small, &[0]).is_some());
    assert_eq!(pass(&small, &[0]), pass(&small, &[3, 4]));
    // What is not one of the study's sets could change under the same name; what is too large goes through a loader, and so does an
    // order that is wrong, for the loader's error.
    assert!(
        pass(&other, &[0]).is_none() && pass(&large, &[0]).is_none() && pass(&small, &[IMAGES]).is_none()
    );

    let random =
        Transform { augment: Augment { random_crop: true, ..Augment::default() }, ..transform.clone() };
    assert!(way.pass(&small, &[0], &random, Some(Seed::root(1)), &options).unwrap().is_none());
}

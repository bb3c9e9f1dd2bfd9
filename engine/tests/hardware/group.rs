//! Exchanges, alone and in a group.

use crate::products::{decode, encode};
use crate::{Random, gpu, read};
use foresail_engine::cuda::gpu::{Format, Gpu};
use foresail_engine::cuda::hardware::Hardware;
use std::thread;

#[test]
fn alone_a_sum_is_its_own_and_a_gathering_a_copy() {
    let Some(mut gpu) = gpu() else { return };
    let data = Random(5).bytes(512);
    let (from, to) = (
        gpu.allocate(512).expect("allocated"),
        gpu.allocate(512).expect("allocated"),
    );
    gpu.write(from, &data).expect("written");
    gpu.all_reduce(from, 256).expect("nothing to do");
    gpu.all_gather(from, to, 512).expect("copied");
    assert!(read(&mut gpu, to, 512) == data && read(&mut gpu, from, 512) == data);
}

#[test]
fn gpus_of_a_group_have_the_sum_and_the_whole() {
    let Some(first) = gpu() else { return };
    drop(first);
    let count = Hardware::count().expect("there is a driver").min(4);
    if count < 2 {
        eprintln!("SKIPPED: an exchange takes two GPUs, and there is one");
        return;
    }
    let ordinals: Vec<u32> = (0..count).collect();
    let group = Hardware::group(&ordinals).expect("they reach each other");
    let ranks: Vec<_> = group
        .into_iter()
        .enumerate()
        .map(|(rank, gpu)| thread::spawn(move || exchange(gpu, rank, count as usize)))
        .collect();
    for rank in ranks {
        rank.join().expect("its sums are right");
    }
}

/// One rank's part of the test: eager, and replayed.
fn exchange(mut gpu: Hardware, rank: usize, world: usize) {
    let values = 1000;
    let bytes: Vec<u8> = (0..values)
        .flat_map(|index| encode((index % 7 + rank) as f32, Format::Bf16))
        .collect();
    let sums: Vec<f64> = (0..values)
        .map(|index| (0..world).map(|rank| (index % 7 + rank) as f64).sum())
        .collect();
    let at = gpu.allocate(bytes.len()).expect("allocated");
    let whole = gpu.allocate(world * bytes.len()).expect("allocated");
    for recorded in [false, true] {
        gpu.write(at, &bytes).expect("written");
        gpu.wait().expect("written");
        if recorded {
            gpu.begin_recording().expect("begun");
        }
        gpu.all_gather(at, whole, bytes.len()).expect("gathered");
        gpu.all_reduce(at, values).expect("added up");
        if recorded {
            let recording = gpu.end_recording().expect("ended");
            gpu.replay(recording).expect("replayed");
        }
        assert_eq!(decode(&read(&mut gpu, at, bytes.len()), Format::Bf16), sums);
        let gathered = decode(&read(&mut gpu, whole, world * bytes.len()), Format::Bf16);
        for (index, value) in gathered.into_iter().enumerate() {
            assert_eq!(value, (index % values % 7 + index / values) as f64);
        }
    }
}

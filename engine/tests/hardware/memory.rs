//! Memory, and copies.

use crate::{Random, gpu, read};
use foresail_engine::cuda::gpu::{Address, Gpu, GpuError};

#[test]
fn what_is_written_is_read_back_whatever_its_size() {
    let Some(mut gpu) = gpu() else { return };
    let mut random = Random(1);
    // The last goes round the ring of pinned memory, which has 64 MiB.
    for bytes in [0, 1, 255, 256, 4096, (1 << 20) + 3, (100 << 20) + 1] {
        let at = gpu.allocate(bytes).expect("allocated");
        assert_eq!(at.0 % 256, 0);
        let mut data = random.bytes(bytes);
        gpu.write(at, &data).expect("written");
        let written = data.clone();
        data.fill(0);
        assert!(read(&mut gpu, at, bytes) == written, "{bytes} bytes");
        gpu.free(at).expect("freed");
    }
}

#[test]
fn many_small_writes_and_readings_are_in_order() {
    let Some(mut gpu) = gpu() else { return };
    let at = gpu.allocate(4096).expect("allocated");
    let mut readings = Vec::new();
    for round in 0..200_u32 {
        let data = round.to_le_bytes().repeat(1024);
        gpu.write(at, &data).expect("written");
        readings.push((round, gpu.read(at, 4096).expect("begun")));
    }
    for (round, reading) in readings {
        let bytes = gpu.finish(reading).expect("read");
        assert!(bytes == round.to_le_bytes().repeat(1024), "round {round}");
    }
}

#[test]
fn a_fill_sets_every_byte_and_no_other() {
    let Some(mut gpu) = gpu() else { return };
    let at = gpu.allocate(1000).expect("allocated");
    gpu.fill(at, 1000, 7).expect("filled");
    gpu.fill(at.offset(10), 100, 9).expect("filled");
    let bytes = read(&mut gpu, at, 1000);
    assert!(
        bytes[..10]
            .iter()
            .chain(&bytes[110..])
            .all(|byte| *byte == 7)
    );
    assert!(bytes[10..110].iter().all(|byte| *byte == 9));
}

#[test]
fn more_memory_than_there_is_is_refused_with_what_is_free_and_nothing_else_breaks() {
    let Some(mut gpu) = gpu() else { return };
    let free = gpu.memory_free_bytes().expect("known");
    assert!((1..=gpu.properties().memory_bytes).contains(&free));
    let wanted = 2 * gpu.properties().memory_bytes as usize;
    match gpu.allocate(wanted) {
        Err(GpuError::OutOfMemory { asked, free }) => {
            assert_eq!(asked, wanted as u64);
            assert!(free > 0);
        }
        other => panic!("{other:?}"),
    }
    let at = gpu.allocate(1 << 20).expect("there is as much");
    gpu.fill(at, 1 << 20, 1).expect("filled");
    assert_eq!(read(&mut gpu, at, 1), [1]);
}

#[test]
fn what_was_not_allocated_is_neither_copied_nor_freed() {
    let Some(mut gpu) = gpu() else { return };
    let at = gpu.allocate(256).expect("allocated");
    assert!(gpu.write(at, &[0; 257]).is_err());
    assert!(gpu.fill(at.offset(200), 57, 0).is_err());
    assert!(gpu.read(Address(16), 16).is_err());
    gpu.free(at).expect("it was allocated");
    assert!(gpu.free(at).is_err());
    assert!(gpu.write(at, &[0]).is_err());
    gpu.wait().expect("nothing was harmed");
}

//! Kernels, recordings, moments.

use crate::{affine, affine_kernel, floats, gpu, read, unit};
use foresail_engine::cuda::gpu::{Gpu, GpuError, Kernel, Launch, Unit};
use foresail_engine::cuda::hardware::Hardware;
use foresail_engine::cuda::kernels::Arguments;
use std::thread;

#[test]
fn kernels_run_in_order_though_they_overlap() {
    let Some(mut gpu) = gpu() else { return };
    let kernel = affine_kernel(&mut gpu);
    let count = 1_000_003;
    let at = gpu.allocate(4 * count).expect("allocated");
    gpu.fill(at, 4 * count, 0).expect("filled");
    let mut expected = 0_f32;
    for step in 0..20 {
        affine(&mut gpu, kernel, at, count, 0.5, step as f32);
        expected = expected * 0.5 + step as f32;
    }
    let values = floats(&read(&mut gpu, at, 4 * count));
    assert!(values.iter().all(|value| *value == expected), "{expected}");
}

#[test]
fn a_block_can_have_all_the_shared_memory_that_the_gpu_says() {
    let Some(mut gpu) = gpu() else { return };
    let kernel = gpu.compile(&unit()).expect("compiled")[2];
    let most = gpu.properties().shared_bytes_max;
    let at = gpu.allocate(4).expect("allocated");
    let launch = |gpu: &mut Hardware, shared_bytes: u32| {
        let words = shared_bytes as usize / 4;
        let arguments = Arguments::new().address(at).count(words).count(0);
        gpu.launch(&Launch {
            kernel,
            blocks: [1, 1, 1],
            threads: 128,
            shared_bytes,
            overlaps: false,
            arguments: &arguments.bytes(),
        })
    };
    // Kernels have no shared memory of their own, and what they ask for begins at a multiple of 1024.
    for shared_bytes in [1024, 48 << 10, 100 << 10, most] {
        launch(&mut gpu, shared_bytes).expect("launched");
        let sum = (0..shared_bytes / 4).fold(0_u32, u32::wrapping_add);
        assert_eq!(
            read(&mut gpu, at, 4),
            sum.to_le_bytes(),
            "{shared_bytes} bytes"
        );
    }
    let error = launch(&mut gpu, most + 1024)
        .expect_err("there is not as much")
        .to_string();
    assert!(error.contains("shared asks for"), "{error}");
}

#[test]
fn a_launch_with_other_arguments_than_the_kernel_takes_is_refused() {
    let Some(mut gpu) = gpu() else { return };
    let kernel = affine_kernel(&mut gpu);
    for (kernel, arguments) in [(kernel, &[0_u8; 16][..]), (Kernel(1000), &[0; 24])] {
        let launch = Launch {
            kernel,
            blocks: [1, 1, 1],
            threads: 128,
            shared_bytes: 0,
            overlaps: false,
            arguments,
        };
        assert!(matches!(gpu.launch(&launch), Err(GpuError::Call { .. })));
    }
    gpu.wait().expect("nothing was launched");
}

#[test]
fn what_is_recorded_is_done_when_it_is_replayed_and_not_before() {
    let Some(mut gpu) = gpu() else { return };
    let kernel = affine_kernel(&mut gpu);
    let at = gpu.allocate(400).expect("allocated");
    gpu.fill(at, 400, 0).expect("filled");
    gpu.begin_recording().expect("begun");
    affine(&mut gpu, kernel, at, 100, 2.0, 1.0);
    affine(&mut gpu, kernel, at, 100, 3.0, 0.0);
    assert!(gpu.begin_recording().is_err());
    assert!(gpu.allocate(1).is_err() && gpu.write(at, &[0; 4]).is_err() && gpu.wait().is_err());
    let recording = gpu.end_recording().expect("what was refused is not in it");
    assert!(gpu.end_recording().is_err());
    assert!(
        floats(&read(&mut gpu, at, 400))
            .iter()
            .all(|value| *value == 0.0)
    );

    let mut expected = 0_f32;
    for _ in 0..5 {
        gpu.replay(recording).expect("replayed");
        expected = (expected * 2.0 + 1.0) * 3.0;
    }
    assert!(
        floats(&read(&mut gpu, at, 400))
            .iter()
            .all(|value| *value == expected)
    );
}

#[test]
fn what_does_not_compile_is_an_error_in_the_compilers_words_and_the_rest_goes_on() {
    let Some(mut gpu) = gpu() else { return };
    let broken = Unit {
        source: "struct A { u64 a; }; KERNEL(affine, 32, 1, A) { nonsense(); }",
        ..unit()
    };
    match gpu.compile(&broken) {
        Err(GpuError::Compile { file, log }) => {
            assert_eq!(file, "hardware_test.cu");
            assert!(log.contains("nonsense"), "{log}");
        }
        other => panic!("{other:?}"),
    }
    assert!(gpu.compile_all(&[unit(), broken]).is_err());
    let other = Unit {
        constants: vec![("ANOTHER", 1)],
        ..unit()
    };
    gpu.compile_all(&[unit(), other.clone()]).expect("compiled");
    assert_eq!(gpu.compile(&other).expect("found").len(), 3);
}

#[test]
fn time_passes_between_moments() {
    let Some(mut gpu) = gpu() else { return };
    let kernel = gpu.compile(&unit()).expect("compiled")[1];
    let first = gpu.mark().expect("marked");
    gpu.launch(&Launch {
        kernel,
        blocks: [1, 1, 1],
        threads: 32,
        shared_bytes: 0,
        overlaps: false,
        arguments: &20_000_000_u64.to_ne_bytes(),
    })
    .expect("launched");
    let second = gpu.mark().expect("marked");
    let seconds = gpu.seconds_between(first, second).expect("timed");
    assert!((0.019..0.2).contains(&seconds), "{seconds} s");
    for _ in 0..5000 {
        gpu.mark().expect("marked");
    }
    assert!(
        gpu.seconds_between(first, second).is_err(),
        "too many came after"
    );
}

#[test]
fn a_gpu_can_be_moved_to_another_thread() {
    let Some(mut gpu) = gpu() else { return };
    let kernel = affine_kernel(&mut gpu);
    let at = gpu.allocate(400).expect("allocated");
    gpu.fill(at, 400, 0).expect("filled");
    let moved = thread::spawn(move || {
        affine(&mut gpu, kernel, at, 100, 1.0, 5.0);
        gpu
    });
    let mut gpu = moved.join().expect("it worked");
    assert!(
        floats(&read(&mut gpu, at, 400))
            .iter()
            .all(|value| *value == 5.0)
    );
}

//! A GPU that is lost: nothing hangs, and everyone hears why.

use crate::child::{is_child, run_alone};
use crate::{affine, affine_kernel, gpu};
use foresail_engine::cuda::gpu::{Address, Gpu, GpuError};
use foresail_engine::cuda::hardware::Hardware;
use std::thread;

/// Has a kernel write where nothing is, and waits for it.
fn lose(gpu: &mut Hardware) -> GpuError {
    let kernel = affine_kernel(gpu);
    affine(gpu, kernel, Address::NONE, 100, 1.0, 1.0);
    gpu.wait().expect_err("it wrote nowhere")
}

#[test]
fn after_a_kernel_went_astray_every_call_fails_with_why() {
    let Some(mut gpu) = gpu() else { return };
    if !is_child() {
        drop(gpu);
        run_alone(
            "lost::after_a_kernel_went_astray_every_call_fails_with_why",
            &[],
        );
        return;
    }
    let error = lose(&mut gpu);
    assert!(error.is_fatal(), "{error}");
    let GpuError::Lost(why) = &error else {
        panic!("{error}")
    };
    assert!(why.contains("illegal memory access"), "{why}");
    assert_eq!(gpu.wait(), Err(error.clone()));
    assert_eq!(gpu.allocate(16).expect_err("lost"), error);
    assert_eq!(gpu.mark().expect_err("lost"), error);
    assert_eq!(gpu.begin_recording(), Err(error));
    drop(gpu);
}

#[test]
fn a_rank_that_waits_for_one_that_is_lost_is_lost_too_and_says_why() {
    if gpu().is_none() {
        return;
    }
    if Hardware::count().expect("there is a driver") < 2 {
        eprintln!("SKIPPED: a group takes two GPUs, and there is one");
        return;
    }
    if !is_child() {
        run_alone(
            "lost::a_rank_that_waits_for_one_that_is_lost_is_lost_too_and_says_why",
            &[],
        );
        return;
    }
    let mut group = Hardware::group(&[0, 1]).expect("they reach each other");
    let (mut second, mut first) = (group.pop().expect("two"), group.pop().expect("two"));
    // The other never comes to it.
    let at = second.allocate(200).expect("allocated");
    second.all_reduce(at, 100).expect("begun");
    let waiting = thread::spawn(move || second.wait().expect_err("the other is lost"));
    let error = lose(&mut first);
    drop(first);
    let other = waiting.join().expect("it says why");
    assert!(error.is_fatal() && other.is_fatal());
    let other = other.to_string();
    assert!(other.contains("another GPU of its group failed"), "{other}");
    assert!(other.contains("illegal memory access"), "{other}");
}

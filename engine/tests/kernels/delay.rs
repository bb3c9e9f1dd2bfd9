//! Time passes on the device, and no more than was asked for.

use foresail_engine::cuda::kernels::delay::Delay;

use crate::device::each_device;

#[test]
fn the_queue_waits_so_long() {
    each_device(|device| {
        let delay = Delay::new(&mut *device.gpu).expect("compiled");
        // Twice, as the first launch of a kernel may take longer.
        for nanoseconds in [0, 2_000_000, 20_000_000] {
            let begin = device.gpu.mark().expect("marked");
            delay
                .enqueue(&mut *device.gpu, nanoseconds)
                .expect("launched");
            let end = device.gpu.mark().expect("marked");
            let seconds = device.gpu.seconds_between(begin, end).expect("done");
            let expected = f64::from(nanoseconds) / 1e9;
            assert!(seconds >= expected - 3e-6, "{seconds} of {expected}");
            if device.is_hardware() && nanoseconds > 0 {
                assert!(seconds < expected + 1e-4, "{seconds} of {expected}");
            }
        }
    });
}

//! A real GPU keeps the promises of `Gpu`. Without one, all but the first test say that they were skipped.

#![allow(clippy::print_stderr, reason = "a test that is skipped must be seen")]

use foresail_engine::cuda::gpu::{
    Address, Format, Gpu, GpuError, Kernel, KernelFacts, Launch, Product, Unit,
};
use foresail_engine::cuda::hardware::Hardware;
use foresail_engine::cuda::kernels::Arguments;
use half::bf16;
use std::env;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const SOURCE: &str = "\
struct AffineArguments { float* values; u32 count; float factor; float shift; };
KERNEL(affine, 128, 1, AffineArguments) {
    wait_for_earlier_kernels();
    let_next_kernel_begin();
    u32 i = blockIdx.x * 128 + threadIdx.x;
    if (i < args.count) args.values[i] = args.values[i] * args.factor + args.shift;
}

struct WaitArguments { u64 nanoseconds; };
KERNEL(wait, 32, 1, WaitArguments) {
    u64 began = clock_ns();
    while (clock_ns() - began < args.nanoseconds) {}
}

// Each thread puts its number in shared memory, and the first adds them up.
struct SharedArguments { u32* sum; u32 words; };
KERNEL(shared, 128, 1, SharedArguments) {
    u32* words = (u32*)shared_memory();
    for (u32 i = threadIdx.x; i < args.words; i += 128) words[i] = i;
    sync_block();
    if (threadIdx.x > 0) return;
    u32 sum = 0;
    for (u32 i = 0; i < args.words; i++) sum += words[i];
    *args.sum = sum;
}
";

const fn facts(name: &'static str, argument_bytes: usize) -> KernelFacts {
    KernelFacts {
        name,
        argument_bytes,
        registers_max: 64,
        instructions: &[],
    }
}

/// The kernels above.
fn unit() -> Unit {
    Unit {
        file: "hardware_test.cu",
        source: SOURCE,
        constants: Vec::new(),
        kernels: const { &[facts("affine", 24), facts("wait", 8), facts("shared", 16)] },
    }
}

/// The first GPU, or `None`, loudly.
fn gpu() -> Option<Hardware> {
    match Hardware::open(0) {
        Ok(gpu) => Some(gpu),
        Err(GpuError::Library(why)) => {
            eprintln!("SKIPPED: {why}");
            None
        }
        Err(error) => panic!("there is a GPU, and it does not open: {error}"),
    }
}

/// Random bits (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let words = (0..count.div_ceil(8)).flat_map(|_| self.next().to_le_bytes());
        words.take(count).collect()
    }

    /// Between -1 and 1.
    fn number(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

fn read(gpu: &mut Hardware, from: Address, bytes: usize) -> Vec<u8> {
    let reading = gpu.read(from, bytes).expect("begun");
    gpu.finish(reading).expect("read")
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    let words = bytes.chunks_exact(4);
    words
        .map(|word| f32::from_le_bytes([word[0], word[1], word[2], word[3]]))
        .collect()
}

fn affine(gpu: &mut Hardware, kernel: Kernel, at: Address, count: usize, factor: f32, shift: f32) {
    let arguments = Arguments::new()
        .address(at)
        .count(count)
        .number(factor)
        .number(shift);
    gpu.launch(&Launch {
        kernel,
        blocks: [count.div_ceil(128) as u32, 1, 1],
        threads: 128,
        shared_bytes: 0,
        overlaps: true,
        arguments: &arguments.bytes(),
    })
    .expect("launched");
}

#[test]
fn without_a_driver_the_refusal_is_one_line_that_says_what_is_missing() {
    match Hardware::count() {
        Ok(count) => assert_eq!(Hardware::open(0).is_ok(), count > 0),
        Err(GpuError::Library(why)) => {
            assert!(!why.contains('\n'), "{why}");
            assert!(
                why.contains("CUDA driver") || why.contains("no GPU"),
                "{why}"
            );
            let error = Hardware::open(0).err().expect("there is none to open");
            assert_eq!(error, GpuError::Library(why));
            assert!(Hardware::group(&[0, 1]).is_err());
            assert!(!error.is_fatal());
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn an_ordinal_beyond_the_last_is_refused_with_their_number() {
    if gpu().is_none() {
        return;
    }
    let count = Hardware::count().expect("there is a driver");
    let error = Hardware::open(count)
        .err()
        .expect("there is no such GPU")
        .to_string();
    assert!(error.contains(&format!("no GPU {count}")), "{error}");
}

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

#[test]
fn kernels_run_in_order_though_they_overlap() {
    let Some(mut gpu) = gpu() else { return };
    let [kernel, ..] = gpu.compile(&unit()).expect("compiled")[..] else {
        panic!("there are three")
    };
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
    let [_, _, kernel] = gpu.compile(&unit()).expect("compiled")[..] else {
        panic!("there are three")
    };
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
    let [kernel, ..] = gpu.compile(&unit()).expect("compiled")[..] else {
        panic!("there are three")
    };
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
    let [kernel, ..] = gpu.compile(&unit()).expect("compiled")[..] else {
        panic!("there are three")
    };
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
    let [_, kernel, _] = gpu.compile(&unit()).expect("compiled")[..] else {
        panic!("there are three")
    };
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
    let [kernel, ..] = gpu.compile(&unit()).expect("compiled")[..] else {
        panic!("there are three")
    };
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

/// `x`, `W` and `y` of a product, and what is in them.
struct Case {
    product: Product,
    x: Vec<f32>,
    weights: Vec<f32>,
    before: Vec<f32>,
}

fn number_bytes(format: Format) -> usize {
    match format {
        Format::Bf16 => 2,
        Format::F32 => 4,
    }
}

impl Case {
    fn new(
        gpu: &mut Hardware,
        random: &mut Random,
        shape: [usize; 3],
        format: Format,
        adds: bool,
    ) -> Self {
        let [rows, outputs, inputs] = shape;
        let (inputs_stride, y_stride) = (inputs.next_multiple_of(64), outputs.next_multiple_of(64));
        let mut numbers = |rows: usize, width: usize, stride: usize| -> Vec<f32> {
            let value = |index: usize| {
                let inside = index % stride < width;
                let number = if inside { random.number() } else { 0.0 };
                bf16::from_f32(number).to_f32()
            };
            let mut value = value;
            (0..rows * stride).map(&mut value).collect()
        };
        let x = numbers(rows, inputs, inputs_stride);
        let weights = numbers(outputs, inputs, inputs_stride);
        let before = numbers(rows, outputs, y_stride);
        let mut upload = |values: &[f32], format| {
            let bytes: Vec<u8> = values
                .iter()
                .flat_map(|value| encode(*value, format))
                .collect();
            let at = gpu.allocate(bytes.len()).expect("allocated");
            gpu.write(at, &bytes).expect("written");
            at
        };
        let product = Product {
            rows,
            outputs,
            inputs,
            x: upload(&x, Format::Bf16),
            x_stride: inputs_stride,
            weights: upload(&weights, Format::Bf16),
            weights_stride: inputs_stride,
            y: upload(&before, format),
            y_stride,
            y_format: format,
            adds,
        };
        Self {
            product,
            x,
            weights,
            before,
        }
    }

    /// What `y` is to be: in f64, by definition.
    fn expected(&self) -> Vec<f64> {
        let Product {
            rows,
            outputs,
            inputs,
            x_stride,
            weights_stride,
            y_stride,
            adds,
            ..
        } = self.product;
        let mut y: Vec<f64> = self.before.iter().map(|value| f64::from(*value)).collect();
        for row in 0..rows {
            for output in 0..outputs {
                let terms = (0..inputs).map(|k| {
                    f64::from(self.x[row * x_stride + k])
                        * f64::from(self.weights[output * weights_stride + k])
                });
                let sum: f64 = terms.sum();
                let y = &mut y[row * y_stride + output];
                *y = if adds { *y + sum } else { sum };
            }
        }
        y
    }

    fn restore(&self, gpu: &mut Hardware) {
        let format = self.product.y_format;
        let bytes: Vec<u8> = self
            .before
            .iter()
            .flat_map(|value| encode(*value, format))
            .collect();
        gpu.write(self.product.y, &bytes).expect("written");
    }

    fn result(&self, gpu: &mut Hardware) -> Vec<u8> {
        let bytes = self.before.len() * number_bytes(self.product.y_format);
        read(gpu, self.product.y, bytes)
    }
}

fn encode(value: f32, format: Format) -> Vec<u8> {
    match format {
        Format::Bf16 => bf16::from_f32(value).to_le_bytes().to_vec(),
        Format::F32 => value.to_le_bytes().to_vec(),
    }
}

fn decode(bytes: &[u8], format: Format) -> Vec<f64> {
    match format {
        Format::Bf16 => bytes
            .chunks_exact(2)
            .map(|pair| bf16::from_le_bytes([pair[0], pair[1]]).to_f64())
            .collect(),
        Format::F32 => floats(bytes).into_iter().map(f64::from).collect(),
    }
}

#[test]
fn products_are_those_of_a_plain_loop_and_the_same_every_time() {
    let Some(mut gpu) = gpu() else { return };
    let mut random = Random(3);
    // Rows of several buckets and between; outputs that are no multiple of anything.
    let shapes = [
        [1, 8, 64],
        [65, 96, 128],
        [100, 333, 200],
        [128, 64, 4096],
        [300, 1000, 576],
    ];
    for shape in shapes {
        for (format, adds) in [
            (Format::Bf16, false),
            (Format::Bf16, true),
            (Format::F32, false),
        ] {
            let case = Case::new(&mut gpu, &mut random, shape, format, adds);
            gpu.multiply(&case.product).expect("multiplied");
            let first = case.result(&mut gpu);
            let (out, expected) = (decode(&first, format), case.expected());
            let difference: f64 = out
                .iter()
                .zip(&expected)
                .map(|(a, b)| (a - b) * (a - b))
                .sum();
            let norm: f64 = expected.iter().map(|value| value * value).sum();
            let error = (difference / norm).sqrt();
            // Rounding to bf16 is off by 2^-9 at most and by less on average; sums in f32 by far less.
            let bound = if format == Format::Bf16 { 3e-3 } else { 1e-5 };
            assert!(error < bound, "{shape:?} {format:?} {adds}: {error}");
            // What is between the rows stays as it was.
            let (outputs, stride) = (case.product.outputs, case.product.y_stride);
            for (index, value) in out.iter().enumerate() {
                if index % stride >= outputs {
                    assert!(
                        *value == expected[index],
                        "{shape:?}: {index} is not of the product"
                    );
                }
            }
            case.restore(&mut gpu);
            gpu.multiply(&case.product).expect("multiplied");
            assert!(case.result(&mut gpu) == first, "{shape:?}: the same bits");
            // And in a recording.
            case.restore(&mut gpu);
            gpu.begin_recording().expect("begun");
            gpu.multiply(&case.product).expect("recorded");
            let recording = gpu.end_recording().expect("ended");
            gpu.replay(recording).expect("replayed");
            assert!(
                case.result(&mut gpu) == first,
                "{shape:?}: the same bits in a recording"
            );
        }
    }
}

#[test]
fn products_are_measured_without_being_done_and_those_of_nothing_do_nothing() {
    let Some(mut gpu) = gpu() else { return };
    let mut random = Random(4);
    let case = Case::new(&mut gpu, &mut random, [128, 256, 192], Format::Bf16, true);
    let before = case.result(&mut gpu);
    gpu.tune(&[case.product]).expect("measured");
    assert!(case.result(&mut gpu) == before);
    let none = Product {
        rows: 0,
        ..case.product
    };
    gpu.multiply(&none).expect("nothing to do");
    assert!(case.result(&mut gpu) == before);
    let wrong = Product {
        x_stride: 100,
        ..case.product
    };
    assert!(matches!(gpu.multiply(&wrong), Err(GpuError::Call { .. })));
}

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

/// Set in the process whose GPU is lost on purpose.
const CHILD: &str = "FORESAIL_TEST_LOSES_GPU";

#[test]
fn after_a_kernel_went_astray_every_call_fails_with_why_and_nothing_hangs() {
    if env::var_os(CHILD).is_some() {
        lose();
        return;
    }
    if gpu().is_none() {
        return;
    }
    let program = env::current_exe().expect("it runs");
    let name = "after_a_kernel_went_astray_every_call_fails_with_why_and_nothing_hangs";
    let mut child = Command::new(program)
        .args(["--exact", name, "--nocapture"])
        .env(CHILD, "1")
        .stdin(Stdio::null())
        .spawn()
        .expect("started");
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("it was started") {
            assert!(status.success(), "{status}");
            return;
        }
        if began.elapsed() > Duration::from_secs(60) {
            child.kill().expect("killed");
            panic!("it hangs");
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Has a kernel write where nothing is.
fn lose() {
    let mut gpu = gpu().expect("there was one a moment ago");
    let [kernel, ..] = gpu.compile(&unit()).expect("compiled")[..] else {
        panic!("there are three")
    };
    affine(&mut gpu, kernel, Address::NONE, 100, 1.0, 1.0);
    let error = gpu.wait().expect_err("it wrote nowhere");
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

//! What is in a software device's queue, and how it is done.

use std::sync::Arc;
use std::time::Instant;

use super::Software;
use super::runtime::{ChainItem, LaunchItem};
use crate::cuda::gpu::{Address, Format, GpuError, Launch, Product};

/// The most that a grid may be in its first direction, and in the others (CUDA C++ programming
/// guide, "Technical specifications per compute capability").
const BLOCKS_MAX: [u32; 3] = [i32::MAX as u32, 65535, 65535];
/// Kernels of a chain that can be told apart when accesses are checked.
const CHECKED_CHAIN_MAX: usize = 200;
/// The most threads of a block.
const THREADS_MAX: u32 = 1024;

/// A launch, with its arguments.
#[derive(Clone, Debug)]
pub(super) struct LaunchWork {
    pub(super) kernel: usize,
    pub(super) blocks: [u32; 3],
    pub(super) threads: u32,
    pub(super) shared_bytes: u32,
    pub(super) overlaps: bool,
    pub(super) arguments: Arc<[u8]>,
}

/// Something to do.
#[derive(Clone, Debug)]
pub(super) enum Work {
    Launch(LaunchWork),
    Multiply(Product),
    Fill {
        at: Address,
        bytes: usize,
        value: u8,
    },
    Write {
        to: Address,
        bytes: Vec<u8>,
    },
    Read {
        from: Address,
        bytes: usize,
        reading: usize,
    },
    Free(Address),
    AllReduce {
        values: Address,
        count: usize,
    },
    AllGather {
        from: Address,
        to: Address,
        bytes: usize,
    },
    Mark(usize),
}

impl Software {
    /// Does all that is in the queue. What goes wrong in a kernel loses the device.
    pub(super) fn flush(&mut self) -> Result<(), GpuError> {
        self.check_lost()?;
        let works = std::mem::take(&mut self.queue);
        self.queue_bytes = 0;
        let mut rest = works.as_slice();
        while let Some(first) = rest.first() {
            let chain_max = if self.options.checks {
                CHECKED_CHAIN_MAX
            } else {
                usize::MAX
            };
            let chain = rest
                .iter()
                .take(chain_max)
                .take_while(|work| matches!(work, Work::Launch(_) | Work::Multiply(_)))
                .count();
            let done = if chain > 0 {
                self.run_chain(&rest[..chain])
            } else {
                self.do_one(first)
            };
            done.map_err(|error| self.lose(error))?;
            rest = &rest[chain.max(1)..];
        }
        Ok(())
    }

    /// Kernels and products that follow each other: each may begin before the one before it has ended.
    fn run_chain(&mut self, works: &[Work]) -> Result<(), GpuError> {
        let items: Vec<ChainItem<'_>> = works
            .iter()
            .filter_map(|work| match work {
                Work::Launch(launch) => {
                    self.launches += 1;
                    Some(ChainItem::Launch(LaunchItem {
                        kernel: &self.kernels[launch.kernel],
                        blocks: launch.blocks,
                        threads: launch.threads,
                        shared_bytes: launch.shared_bytes,
                        overlaps: launch.overlaps,
                        seed: seed_of_launch(self.options.seed, self.launches),
                        arguments: &launch.arguments,
                    }))
                }
                Work::Multiply(product) => Some(ChainItem::Product(*product)),
                _ => None,
            })
            .collect();
        self.toolchain
            .runtime()
            .run(&items, self.options.checks)
            .map_err(GpuError::Lost)?;
        self.memory.check_intact()
    }

    /// Anything else.
    fn do_one(&mut self, work: &Work) -> Result<(), GpuError> {
        match work {
            Work::Launch(_) | Work::Multiply(_) => self.run_chain(std::slice::from_ref(work)),
            Work::Fill { at, bytes, value } => {
                self.memory.bytes_mut(*at, *bytes).fill(*value);
                Ok(())
            }
            Work::Write { to, bytes } => {
                self.memory
                    .bytes_mut(*to, bytes.len())
                    .copy_from_slice(bytes);
                Ok(())
            }
            Work::Read {
                from,
                bytes,
                reading,
            } => {
                self.readings[*reading] = Some(self.memory.bytes(*from, *bytes).to_vec());
                Ok(())
            }
            Work::Free(at) => {
                self.memory.release(*at);
                Ok(())
            }
            Work::AllReduce { values, count } => {
                let Some(member) = &self.member else {
                    return Ok(());
                };
                member.all_reduce(self.memory.bytes_mut(*values, 2 * count))
            }
            Work::AllGather { from, to, bytes } => {
                let own = self.memory.bytes(*from, *bytes).to_vec();
                let all = match &self.member {
                    Some(member) => member.all_gather(own)?,
                    None => own,
                };
                self.memory.bytes_mut(*to, all.len()).copy_from_slice(&all);
                Ok(())
            }
            Work::Mark(mark) => {
                self.marks[*mark] = Some(Instant::now());
                Ok(())
            }
        }
    }

    /// Whether a launch is possible.
    pub(super) fn check_launch(&self, launch: &Launch<'_>) -> Result<(), GpuError> {
        let refuse = |why: String| {
            Err(GpuError::Call {
                what: "launch",
                why,
            })
        };
        let Some(kernel) = self.kernels.get(launch.kernel.0) else {
            return refuse("no such kernel".to_owned());
        };
        let name = kernel.name();
        for (blocks, blocks_max) in launch.blocks.into_iter().zip(BLOCKS_MAX) {
            if blocks == 0 || blocks > blocks_max {
                return refuse(format!("{name}: a grid of {:?} blocks", launch.blocks));
            }
        }
        let threads_max = kernel.threads_max().min(THREADS_MAX);
        if launch.threads == 0 || launch.threads > threads_max {
            return refuse(format!(
                "{name}: {} threads, of at most {threads_max}",
                launch.threads
            ));
        }
        if !launch.threads.is_multiple_of(32) {
            return refuse(format!(
                "{name}: {} threads, which are no whole warps",
                launch.threads
            ));
        }
        if launch.shared_bytes > self.options.properties.shared_bytes_max {
            return refuse(format!(
                "{name}: {} bytes of shared memory, of at most {}",
                launch.shared_bytes, self.options.properties.shared_bytes_max
            ));
        }
        if launch.arguments.len() != kernel.argument_bytes() {
            return refuse(format!(
                "{name}: {} bytes of arguments, and it takes {}",
                launch.arguments.len(),
                kernel.argument_bytes()
            ));
        }
        Ok(())
    }

    /// Whether a product's matrices are where memory is.
    pub(super) fn check_product(&self, product: &Product) -> Result<(), GpuError> {
        let matrix = |at, rows: usize, columns: usize, stride: usize, bytes: usize| {
            if columns > stride && rows > 1 {
                return Err(GpuError::Call {
                    what: "multiply",
                    why: format!("rows of {columns} values that are {stride} apart"),
                });
            }
            let values = if rows == 0 {
                0
            } else {
                (rows - 1) * stride + columns
            };
            self.memory.check("multiply", at, values * bytes)
        };
        let y_bytes = match product.y_format {
            Format::Bf16 => 2,
            Format::F32 => 4,
        };
        matrix(product.x, product.rows, product.inputs, product.x_stride, 2)?;
        matrix(
            product.weights,
            product.outputs,
            product.inputs,
            product.weights_stride,
            2,
        )?;
        matrix(
            product.y,
            product.rows,
            product.outputs,
            product.y_stride,
            y_bytes,
        )
    }
}

/// Another order of threads for each launch, with the two low bits of the device's seed: they say how copies and blocks are.
fn seed_of_launch(seed: u64, launch: u64) -> u64 {
    let mixed =
        (seed ^ launch.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed & !3) | (seed & 3)
}

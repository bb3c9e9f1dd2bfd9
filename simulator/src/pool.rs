//! The GPUs that the deployments of a run share, and the times at which none can be had.
//!
//! The core's [`GpuPool`] decides who gets them.

use foresail_core::control::gpu_pool::{Claim, Claimed, GpuPool};
use foresail_core::time::{Nanos, SECOND};
use foresail_scenarios::random::{Stream, stream};
use foresail_scenarios::scenario::{self, StockOuts};

/// The pool of a run.
#[derive(Debug)]
pub(crate) struct Pool {
    pool: GpuPool,
    stock: Stock,
}

/// When GPUs can be had, and when they cannot.
#[derive(Debug)]
struct Stock {
    stock_outs: StockOuts,
    /// Fixed stock-outs that have not begun.
    fixed_next: usize,
    /// The next random stock-out: its beginning and its end.
    random_next: Option<(Nanos, Nanos)>,
    /// Until when the present stock-out lasts.
    out_until: Option<Nanos>,
    rng: Stream,
}

impl Stock {
    fn new(stock_outs: StockOuts, seed: u64) -> Self {
        let mut stock = Self {
            stock_outs,
            fixed_next: 0,
            random_next: None,
            out_until: None,
            rng: stream(seed, "gpu_pool.stock_outs"),
        };
        stock.random_next = stock.draw(0);
        stock
    }

    /// The random stock-out after one that ended at `from`.
    fn draw(&mut self, from: Nanos) -> Option<(Nanos, Nanos)> {
        let random = self.stock_outs.random.as_ref()?;
        let nanos = |seconds: f64| (seconds * SECOND as f64) as Nanos;
        let at = from.saturating_add(nanos(random.every_s.sample(&mut self.rng)));
        let lasts = nanos(random.lasts_s.sample(&mut self.rng));
        Some((at, at.saturating_add(lasts)))
    }

    fn fixed(&self) -> Option<(Nanos, Nanos)> {
        let next = self.stock_outs.fixed.get(self.fixed_next)?;
        Some((next.at, next.at.saturating_add(next.lasts)))
    }

    /// When the stock changes next: the end of this stock-out, or the beginning of another.
    fn next_at(&self) -> Option<Nanos> {
        if self.out_until.is_some() {
            return self.out_until;
        }
        let begins = [self.fixed(), self.random_next];
        begins.into_iter().flatten().map(|(at, _)| at).min()
    }

    /// It changes now: whether there is nothing to be had from here on.
    fn turn(&mut self, now: Nanos) -> bool {
        if self.out_until.take_if(|until| *until <= now).is_none() && self.out_until.is_some() {
            return true;
        }
        // Stock-outs may overlap: those that have begun are one, up to the latest end.
        let mut until = None;
        while let Some((_, end)) = self.fixed().filter(|(at, _)| *at <= now) {
            self.fixed_next += 1;
            until = until.max(Some(end));
        }
        if let Some((_, end)) = self.random_next.filter(|(at, _)| *at <= now) {
            self.random_next = self.draw(end);
            until = until.max(Some(end));
        }
        self.out_until = until.filter(|until| *until > now);
        self.out_until.is_some()
    }
}

impl Pool {
    pub(crate) fn new(pool: &scenario::GpuPool, seed: u64) -> Self {
        let sizes = (0..).zip(&pool.kinds);
        let sizes = sizes.filter_map(|(kind, stock)| Some((kind, stock.gpus?)));
        Self {
            pool: GpuPool::new(sizes),
            stock: Stock::new(pool.stock_outs.clone(), seed),
        }
    }

    /// When a stock-out begins or ends next.
    #[inline]
    pub(crate) fn next_at(&self) -> Option<Nanos> {
        self.stock.next_at()
    }

    /// A stock-out begins or ends. Returns who gets GPUs now.
    pub(crate) fn turn(&mut self, now: Nanos) -> Vec<Claim> {
        let is_out = self.stock.turn(now);
        self.pool.set_out_of_stock(is_out)
    }

    /// A replica that is to start claims its GPUs.
    pub(crate) fn claim(&mut self, claim: Claim) -> Claimed {
        self.pool.claim(claim)
    }

    /// A replica gives its GPUs back. Returns who gets GPUs now.
    pub(crate) fn release(&mut self, claim: &Claim) -> Vec<Claim> {
        self.pool.release(claim)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use foresail_scenarios::distribution::Distribution;
    use foresail_scenarios::scenario::{RandomStockOuts, StockOut};

    fn turns(stock_outs: StockOuts, seed: u64, count: usize) -> Vec<(u64, bool)> {
        let mut stock = Stock::new(stock_outs, seed);
        let mut turns = Vec::new();
        while let Some(at) = stock.next_at().filter(|_| turns.len() < count) {
            turns.push((at / SECOND, stock.turn(at)));
        }
        turns
    }

    fn stock_out(at_s: u64, lasts_s: u64) -> StockOut {
        StockOut {
            at: at_s * SECOND,
            lasts: lasts_s * SECOND,
        }
    }

    #[test]
    fn fixed_stock_outs_come_and_go_and_may_touch() {
        let fixed = vec![stock_out(10, 5), stock_out(15, 5), stock_out(40, 1)];
        let random = None;
        let turns = turns(StockOuts { fixed, random }, 1, 9);
        let expected = [(10, true), (15, true), (20, false), (40, true), (41, false)];
        assert_eq!(turns, expected);
    }

    #[test]
    fn random_stock_outs_are_the_same_for_a_seed() {
        let random = || StockOuts {
            fixed: Vec::new(),
            random: Some(RandomStockOuts {
                every_s: Distribution::Exponential { mean: 100.0 },
                lasts_s: Distribution::Exponential { mean: 10.0 },
            }),
        };
        assert_eq!(turns(random(), 1, 20), turns(random(), 1, 20));
        assert_ne!(turns(random(), 1, 20), turns(random(), 2, 20));
        let begins: Vec<_> = turns(random(), 1, 20).iter().map(|(_, out)| *out).collect();
        assert!(
            begins.chunks(2).all(|pair| pair == [true, false]),
            "{begins:?}"
        );
    }
}

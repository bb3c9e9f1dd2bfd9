//! What a GPU-hour costs, from whom, and when that was so.
//!
//! Prices change every few months, so each has the date on which it was read.
//! A scenario that must not change says its own `usd_per_gpu_hour`.

use foresail_core::control::biller::Price;

/// One published price.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PriceEntry {
    /// Catalogue name of the GPU.
    pub gpu: &'static str,
    /// Who asks for it.
    pub provider: &'static str,
    /// What it buys.
    pub product: &'static str,
    /// The price, exactly.
    pub price: Price,
    /// When it was read, as far as that is known.
    pub as_of: &'static str,
    /// Where it was read.
    pub source: &'static str,
}

impl PriceEntry {
    /// One line for a report: provider, product, date and source.
    #[must_use]
    pub fn describe(&self) -> String {
        format!(
            "{} {}, {}, {}",
            self.provider, self.product, self.as_of, self.source
        )
    }
}

/// The price that a scenario gets which does not say one: the first listed for its GPU.
#[must_use]
pub fn default_price(gpu: &str) -> Option<&'static PriceEntry> {
    PRICES.iter().find(|entry| entry.gpu == gpu)
}

const fn price(
    gpu: &'static str,
    (provider, product): (&'static str, &'static str),
    cents_per_gpu_hour: u64,
    as_of: &'static str,
    source: &'static str,
) -> PriceEntry {
    let price = Price {
        nanodollars_per_gpu_hour: cents_per_gpu_hour * 10_000_000,
    };
    PriceEntry {
        gpu,
        provider,
        product,
        price,
        as_of,
        source,
    }
}

const FIREWORKS: (&str, &str) = ("Fireworks", "on-demand deployment");
const TOGETHER: (&str, &str) = ("Together AI", "dedicated endpoint");
const LAMBDA: (&str, &str) = ("Lambda", "on-demand cloud, 8 GPUs");
const RUNPOD: (&str, &str) = ("RunPod", "secure pod");

const FIREWORKS_PAGE: &str = "https://fireworks.ai/pricing";
const TOGETHER_PAGE: &str = "https://docs.together.ai/docs/dedicated-endpoints/overview";
const LAMBDA_PAGE: &str = "https://lambda.ai/instances";
const RUNPOD_PAGE: &str = "https://www.runpod.io/pricing";

/// Published prices, Fireworks first where it lists the GPU. The A100 was no
/// longer on its page of 2026-10-07, so another dated price comes first there.
pub const PRICES: &[PriceEntry] = &[
    price("h100", FIREWORKS, 800, "2026-10-07", FIREWORKS_PAGE),
    price("h200", FIREWORKS, 800, "2026-10-07", FIREWORKS_PAGE),
    price("b200", FIREWORKS, 1_300, "2026-10-07", FIREWORKS_PAGE),
    price("b300", FIREWORKS, 1_500, "2026-10-07", FIREWORKS_PAGE),
    price("a100", LAMBDA, 279, "2026-09-20", LAMBDA_PAGE),
    price("a100", FIREWORKS, 389, "about spring 2024", FIREWORKS_PAGE),
    price("a100", RUNPOD, 179, "2026-11-09", RUNPOD_PAGE),
    price("h100", FIREWORKS, 700, "2026-05-08", FIREWORKS_PAGE),
    price("h200", FIREWORKS, 700, "2026-05-08", FIREWORKS_PAGE),
    price("b200", FIREWORKS, 1_000, "2026-05-08", FIREWORKS_PAGE),
    price("b300", FIREWORKS, 1_200, "2026-05-08", FIREWORKS_PAGE),
    price("h100", TOGETHER, 399, "2026, undated page", TOGETHER_PAGE),
    price("h200", TOGETHER, 549, "2026, undated page", TOGETHER_PAGE),
    price("b200", TOGETHER, 995, "2026, undated page", TOGETHER_PAGE),
    price("h100", LAMBDA, 399, "2026-09-20", LAMBDA_PAGE),
    price("b200", LAMBDA, 669, "2026-09-20", LAMBDA_PAGE),
    price("h100", RUNPOD, 399, "2026-11-09", RUNPOD_PAGE),
    price("h200", RUNPOD, 459, "2026-10-07", RUNPOD_PAGE),
    price("b200", RUNPOD, 679, "2026-10-07", RUNPOD_PAGE),
    price("b300", RUNPOD, 789, "2026-10-07", RUNPOD_PAGE),
];

#[cfg(test)]
mod tests {
    use super::super::gpus::{self, GPUS};
    use super::*;

    #[test]
    fn every_gpu_has_a_default_price_and_every_price_a_gpu() {
        assert!(GPUS.iter().all(|gpu| default_price(gpu.name).is_some()));
        assert!(PRICES.iter().all(|entry| gpus::find(entry.gpu).is_some()));
    }

    #[test]
    fn the_default_is_fireworks_where_it_lists_the_gpu() {
        let entry = default_price("h100").unwrap();
        assert_eq!(entry.price.nanodollars_per_gpu_hour, 8_000_000_000);
        assert_eq!(
            entry.describe(),
            "Fireworks on-demand deployment, 2026-10-07, https://fireworks.ai/pricing"
        );
    }
}

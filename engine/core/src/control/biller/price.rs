//! Exact money: what a GPU-hour costs, and what GPU-time comes to.

use std::fmt;

use thiserror::Error;

use crate::time::HOUR;

/// US dollars per GPU-hour, in 1e-9 USD, so that sums are exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Price {
    /// 1e-9 USD per GPU-hour.
    pub nanodollars_per_gpu_hour: u64,
}

/// Why a text is not a price.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PriceError {
    /// Not a plain decimal number.
    #[error("price must be a decimal number of USD such as 8.00: {text:?}")]
    NotDecimal {
        /// What was written.
        text: String,
    },
    /// Finer than 1e-9 USD.
    #[error("price can have at most 9 decimals: {text:?}")]
    TooFine {
        /// What was written.
        text: String,
    },
    /// More than 64 bits of nanodollars.
    #[error("price must be below 18446744073 USD: {text:?}")]
    TooLarge {
        /// What was written.
        text: String,
    },
}

const NANODOLLARS_PER_DOLLAR: u64 = 1_000_000_000;
const DECIMALS: usize = 9;

impl Price {
    /// Reads a price such as `8.00` or `3.89`, exactly. Zeros at the end do not count.
    ///
    /// # Errors
    /// A [`PriceError`] says what a price may look like.
    pub fn from_usd_per_gpu_hour(text: &str) -> Result<Price, PriceError> {
        let (whole, fraction) = match text.split_once('.') {
            Some((whole, fraction)) if !fraction.is_empty() => (whole, fraction),
            Some(_) => return Err(PriceError::NotDecimal { text: text.into() }),
            None => (text, ""),
        };
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !digits(whole) || !digits(fraction) {
            return Err(PriceError::NotDecimal { text: text.into() });
        }
        let fraction = fraction.trim_end_matches('0');
        if fraction.len() > DECIMALS {
            return Err(PriceError::TooFine { text: text.into() });
        }
        let nanodollars = format!("{whole}{fraction:0<DECIMALS$}").parse();
        match nanodollars {
            Ok(nanodollars_per_gpu_hour) => Ok(Price {
                nanodollars_per_gpu_hour,
            }),
            Err(_) => Err(PriceError::TooLarge { text: text.into() }),
        }
    }

    /// What so much GPU-time costs [1e-9 USD], rounded half up. `None` if it is
    /// more than 128 bits can hold.
    #[must_use]
    pub fn cost_nanodollars(self, gpu_ns: u128) -> Option<u128> {
        let price = u128::from(self.nanodollars_per_gpu_hour);
        let hour = u128::from(HOUR);
        // Whole hours apart from the rest, so that no product comes near 128 bits.
        let rest = (gpu_ns % hour * price + hour / 2) / hour;
        (gpu_ns / hour).checked_mul(price)?.checked_add(rest)
    }
}

/// USD with as many decimals as it takes, at least two.
impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.nanodollars_per_gpu_hour / NANODOLLARS_PER_DOLLAR;
        let rest = self.nanodollars_per_gpu_hour % NANODOLLARS_PER_DOLLAR;
        let fraction = format!("{rest:0>DECIMALS$}");
        let fraction = fraction.trim_end_matches('0');
        write!(f, "{whole}.{fraction:0<2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn price(text: &str) -> Result<u64, PriceError> {
        Price::from_usd_per_gpu_hour(text).map(|price| price.nanodollars_per_gpu_hour)
    }

    #[test]
    fn prices_are_read_exactly() {
        assert_eq!(price("8.00"), Ok(8_000_000_000));
        assert_eq!(price("8"), Ok(8_000_000_000));
        assert_eq!(price("0.1"), Ok(100_000_000));
        assert_eq!(price("0.000000001"), Ok(1));
        assert_eq!(price("1.0000000010000"), Ok(1_000_000_001));
        assert_eq!(price("18446744073.709551615"), Ok(u64::MAX));
    }

    #[test]
    fn what_is_not_a_price_is_refused() {
        for text in [
            "", ".", "8.", ".5", "-1", "+1", "1e3", "8,00", "$8", " 8", "8 ", "1.2.3", "٣", "NaN",
        ] {
            let refused = PriceError::NotDecimal { text: text.into() };
            assert_eq!(price(text), Err(refused), "{text:?}");
        }
        let text = "0.0000000001";
        assert_eq!(price(text), Err(PriceError::TooFine { text: text.into() }));
        let text = "18446744073.709551616";
        let error = price(text).unwrap_err();
        assert_eq!(
            error.to_string(),
            "price must be below 18446744073 USD: \"18446744073.709551616\""
        );
    }

    proptest! {
        #[test]
        fn any_price_is_read_back_as_it_is_written(nanodollars_per_gpu_hour in any::<u64>()) {
            let price = Price { nanodollars_per_gpu_hour };
            prop_assert_eq!(Price::from_usd_per_gpu_hour(&price.to_string()), Ok(price));
        }

        #[test]
        fn cost_is_the_exact_quotient_rounded(gpu_ns in 0_u128..1 << 60, price in 0_u64..1 << 40) {
            let hour = u128::from(HOUR);
            let price = Price { nanodollars_per_gpu_hour: price };
            let product = gpu_ns * u128::from(price.nanodollars_per_gpu_hour);
            prop_assert_eq!(price.cost_nanodollars(gpu_ns), Some((2 * product + hour) / (2 * hour)));
        }
    }
}

//! An engine whose host launches kernels one by one, while the device works.
//!
//! ```text
//! step      /      with host_launch = h, a step that takes the device d takes (h^4 + d^4)^(1/4):
//!   |      /       h where the device waits for the host, d where it does not.
//!   |   _.'
//! h |--'           Between eighths of h it is a straight line, so that a batch that decodes is affine in
//!   +------- d     its context piece by piece: at most 0.3 % above the curve.
//! ```
//!
//! (The largest error of a chord is its width squared times an eighth of the second derivative, which is at most
//! 1.05 / h where d = 0.8 h: 0.2 % of h. From 4 h on, the last piece keeps the 0.4 % of h that the curve is above d there.)

use super::super::DecodePiece;
use super::{picos, rounded_max};

/// Pieces in each `host_launch` of device time.
const PIECES_PER_HOST: u32 = 8;

/// Pieces that are not the last.
const PIECES: u32 = 4 * PIECES_PER_HOST;

/// A host that takes so long to launch a step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Host {
    launch_s: f64,
}

impl Host {
    /// `None` if it takes no time.
    pub(super) fn new(launch_s: f64) -> Option<Self> {
        (launch_s > 0.0).then_some(Self { launch_s })
    }

    /// The device time at which a piece begins (s).
    fn device_s(self, piece: u32) -> f64 {
        self.launch_s * f64::from(piece) / f64::from(PIECES_PER_HOST)
    }

    /// The duration of a step there (s).
    fn corner_s(self, piece: u32) -> f64 {
        let (host_s, device_s) = (self.launch_s, self.device_s(piece));
        rounded_max(host_s * host_s, device_s * device_s).sqrt()
    }

    /// What a second of device time adds in a piece.
    fn slope(self, piece: u32) -> f64 {
        if piece >= PIECES {
            return 1.0;
        }
        (self.corner_s(piece + 1) - self.corner_s(piece)) / self.device_s(1)
    }

    /// The duration of a step that takes the device so long (s).
    pub(super) fn step_s(self, device_s: f64) -> f64 {
        let piece = (device_s / self.device_s(1)).min(f64::from(PIECES)) as u32;
        self.corner_s(piece) + self.slope(piece) * (device_s - self.device_s(piece))
    }

    /// Steps that take the device `fixed_s`, and `token_s` more for each token of context: in order, the
    /// last without end. Each begins where the one before it ends, to the picosecond.
    pub(super) fn pieces(self, fixed_s: f64, token_s: f64) -> Vec<DecodePiece> {
        let mut pieces: Vec<DecodePiece> = Vec::new();
        let (mut from, mut at_from) = (0_u64, picos(self.step_s(fixed_s)) as i64);
        for piece in 0..=PIECES {
            let past_last = match piece {
                PIECES => u64::MAX,
                // Below zero, and so 0, if a step without context takes the device longer.
                _ => ((self.device_s(piece + 1) - fixed_s) / token_s) as u64,
            };
            if past_last <= from {
                continue;
            }
            let per_past_token = picos(self.slope(piece) * token_s);
            pieces.push(DecodePiece {
                fixed: at_from - (per_past_token * from) as i64,
                per_past_token,
                past_last,
            });
            if piece < PIECES {
                at_from += (per_past_token * (past_last - from)) as i64;
                from = past_last;
            }
        }
        pieces
    }
}

/// The piece that holds for this total past.
pub(super) fn piece(pieces: &[DecodePiece], past: u64) -> DecodePiece {
    pieces[pieces.partition_point(|piece| piece.past_last < past)]
}

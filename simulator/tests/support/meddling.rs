//! What a provider and its user do to a random deployment while it runs.

use proptest::prelude::*;

/// An operation. Times are milliseconds.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    WorldSize(u32),
    Windows(u32, u32),
    MaxReplicas(u32),
    MinReplicas(u32),
    Unused(u32),
    Scale(u32),
    Delete,
    Undelete,
}

/// What is done to a random deployment, and what it may use.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meddling {
    /// Each so many milliseconds after the one before it.
    pub(crate) operations: Vec<(u32, Change)>,
    /// Whole USD, at one a GPU-second.
    pub(crate) spend_limit_usd: Option<u32>,
    pub(crate) unused_auto_delete_ms: Option<u32>,
    /// GPUs of a pool, and when it has none: (after, for how long) in milliseconds.
    pub(crate) pool: Option<(u32, Option<(u32, u32)>)>,
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => (0..3_u32).prop_map(|power| Change::WorldSize(1 << power)),
        1 => (0..2000_u32, 0..2000_u32).prop_map(|(up, down)| Change::Windows(up, down)),
        1 => (3..7_u32).prop_map(Change::MaxReplicas),
        1 => (0..2_u32).prop_map(Change::MinReplicas),
        1 => (1000..8000_u32).prop_map(Change::Unused),
        2 => (0..7_u32).prop_map(Change::Scale),
        1 => Just(Change::Delete),
        1 => Just(Change::Undelete),
    ]
}

pub(crate) fn meddling() -> impl Strategy<Value = Meddling> {
    let stock_out = prop::option::of((0..6000_u32, 1..5000_u32));
    (
        prop::collection::vec((0..2500_u32, change()), 0..8),
        prop::option::weighted(0.3, 1..40_u32),
        prop::option::weighted(0.3, 1000..8000_u32),
        prop::option::weighted(0.4, (12..40_u32, stock_out)),
    )
        .prop_map(
            |(operations, spend_limit_usd, unused_auto_delete_ms, pool)| Meddling {
                operations,
                spend_limit_usd,
                unused_auto_delete_ms,
                pool,
            },
        )
}

impl Change {
    fn text(&self) -> String {
        match self {
            Self::WorldSize(size) => format!("update = {{ world_size = {size} }}"),
            Self::Windows(up, down) => format!(
                "update = {{ scale_up_window = \"{up}ms\", scale_down_window = \"{down}ms\" }}"
            ),
            Self::MaxReplicas(max) => format!("update = {{ max_replica_count = {max} }}"),
            Self::MinReplicas(min) => format!("update = {{ min_replica_count = {min} }}"),
            Self::Unused(after) => {
                format!("update = {{ unused_auto_delete_duration = \"{after}ms\" }}")
            }
            Self::Scale(replicas) => format!("scale = {replicas}"),
            Self::Delete => "delete = true".to_owned(),
            Self::Undelete => "undelete = true".to_owned(),
        }
    }
}

impl Meddling {
    /// The tables of it, of a deployment that begins with these limits; one of a
    /// fixed plan, without, can only be deleted.
    pub(crate) fn text(&self, limits: Option<(u32, u32)>) -> String {
        let mut lines = vec!["[price]\nusd_per_gpu_hour = 3600".to_owned()];
        if let Some(limit) = self.spend_limit_usd {
            lines.push(format!("[account]\nspend_limit_usd = {limit}"));
        }
        lines.extend(self.pool.map(pool_text));
        let mut asked = Asked {
            limits,
            is_deleted: false,
        };
        let mut at_ms = 0;
        for (after, change) in &self.operations {
            at_ms += after;
            let text = asked.makes_sense(change).map(|change| change.text());
            lines.extend(text.map(|text| format!("[[operations]]\nat = \"{at_ms}ms\"\n{text}")));
        }
        lines.join("\n")
    }
}

fn pool_text((gpus, stock_out): (u32, Option<(u32, u32)>)) -> String {
    let stock_outs = stock_out.map_or(String::new(), |(after, lasts)| {
        format!("stock_outs = [{{ at = \"{after}ms\", lasts = \"{lasts}ms\" }}]\n")
    });
    format!("[gpu_pool]\n{stock_outs}[gpu_pool.gpus]\nh100 = {gpus}")
}

/// What the operations so far have made of a deployment.
struct Asked {
    limits: Option<(u32, u32)>,
    is_deleted: bool,
}

impl Asked {
    /// The change, if it is none that is always refused.
    fn makes_sense(&mut self, change: &Change) -> Option<Change> {
        if matches!(change, Change::Undelete) != self.is_deleted {
            return None;
        }
        if matches!(change, Change::Delete) {
            self.is_deleted = true;
            return Some(Change::Delete);
        }
        let (min, max) = self.limits.as_mut()?;
        match change {
            Change::MinReplicas(count) => *min = *count,
            Change::MaxReplicas(count) => *max = *count,
            Change::Scale(count) => return Some(Change::Scale((*count).clamp(*min, *max))),
            Change::Undelete => self.is_deleted = false,
            _ => {}
        }
        Some(change.clone())
    }
}

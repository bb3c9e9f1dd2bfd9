//! What the server says of itself meanwhile, joined to the run's clock.
//!
//! ```text
//! target… ── every second, each on its own ──> page ─ exposition ─> sample ─> Scraped ─┬─ timeline ─> a point a second
//!                                                                                    ├─ summary ──> figures of the window
//!                                                                                    └─ deployment ─> replicas, GPU-time, cost
//! ```

pub mod exposition;
mod replicas;
mod sample;
mod scraped;
mod scraper;
mod selector;
mod summary;

pub use replicas::{Billing, Deployment, ReplicaCount, deployment};
pub use sample::{GpuSample, ServerSample};
pub use scraped::{GONE_AFTER_FAILURES, Point, Scrape, ScrapeFailure, Scraped, TargetScrapes};
pub use scraper::{ScrapeTarget, Scraper, Settings};
pub use selector::{Selector, SelectorError};
pub use summary::{TokensDiffer, tokens_differ};

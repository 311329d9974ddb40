//! The memory of a run that is about to begin, held against what its device has free.

use std::fmt::{self, Display, Formatter};
use std::path::Path;

use zerosearch_data::Question;
use zerosearch_train::TrainConfig;

use super::device::Target;
use super::memory::cache_bytes;
use super::report::{during, largest, size};
use super::{DryRun, DryRunError, Memory};
use crate::config::Tables;
use crate::device::DeviceName;
use crate::pipeline::PipelineConfig;

/// The memory plan of a run on this machine.
///
/// ```
/// use std::path::Path;
/// use zerosearch::config::Tables;
/// use zerosearch::dry_run::{DryRun, KvCache};
///
/// let text = r#"
///     model = "Qwen2.5-3B"
///     questions = "train.jsonl"
///     out = "runs/large"
///     device = "cuda:0"
///     engine = { kind = "retriever", url = "http://10.0.0.5:8000" }
///     train = { gradient_checkpointing = true, lora = { rank = 16 } }
/// "#;
/// let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/recipes");
/// let dry_run = DryRun::of(Tables::parse("run.toml", text, &[])?, &recipes, None)?;
/// // On a card with 80 GB the rollouts share a smaller cache than they could fill.
/// let plan = dry_run.clone().plan(Some(79 << 30))?;
/// assert!(matches!(plan.kv_cache, KvCache::Bounded(bytes) if bytes > 1 << 30), "{plan}");
/// // The weights alone are more than 8 GiB.
/// assert!(dry_run.plan(Some(8 << 30)).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct MemoryPlan {
    /// The memory of the run, by part.
    pub memory: Memory,
    /// Bytes that the device has free; `None` where nothing says.
    pub free_bytes: Option<u64>,
    /// The cache of the policy's rollouts.
    pub kv_cache: KvCache,
    device: DeviceName,
}

/// The memory of the policy's KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvCache {
    /// As the configuration says: everything fits, or nothing says what is free.
    AsConfigured,
    /// So many bytes at most, for `train.kv_cache_memory_bytes`: what everything else leaves of the free memory.
    Bounded(usize),
    /// As the configuration says, although not everything fits if rollouts become as long as they may.
    TooLarge,
}

impl DryRun {
    /// Holds the run against the bytes that its device has free; `dry_run.memory_gib` counts instead where it is given. Where the run
    /// would not fit and a smaller cache of the policy makes it fit, that is the [`kv_cache`](MemoryPlan::kv_cache) of the plan.
    ///
    /// # Errors
    /// When the parts that do not depend on the length of rollouts are more than is free. Names the largest, and keys that would
    /// lower them.
    pub fn plan(self, free_bytes: Option<u64>) -> Result<MemoryPlan, DryRunError> {
        let given = self.memory_gib.map(|gib| (gib * f64::from(1 << 30)) as u64);
        let free_bytes = given.or(free_bytes);
        let kv_cache = match free_bytes {
            Some(free) if self.memory.peak_bytes > free => {
                let (certain, time) = self.memory.certain();
                if certain > free {
                    let available = match self.memory_gib {
                        Some(gib) => format!("`dry_run.memory_gib` is {gib}"),
                        None => format!("{} has {} free", self.device, size(free)),
                    };
                    let largest = largest(self.memory.parts.iter().filter(|part| !part.grows), time);
                    let remedies = self.remedies.iter().filter(|remedy| remedy.lowers_certain);
                    return Err(self.too_large(certain, time, available, largest, remedies));
                }
                self.smaller_cache(free).map_or(KvCache::TooLarge, KvCache::Bounded)
            }
            _ => KvCache::AsConfigured,
        };
        Ok(MemoryPlan { memory: self.memory, free_bytes, kv_cache, device: self.device })
    }

    /// The plan with what its device has free now.
    fn planned(self) -> Result<MemoryPlan, DryRunError> {
        let free_bytes = self.device.free_memory();
        self.plan(free_bytes)
    }

    /// A bound of the policy's cache with which everything fits, if it has room for one rollout.
    fn smaller_cache(&self, free: u64) -> Option<usize> {
        let target = Target::of(self.device);
        let bound = target.before_growth(self.memory.left_for_cache(free)?);
        let least = cache_bytes(&self.policy.config, target, 1, self.lengths.tokens);
        usize::try_from(bound).ok().filter(|_| bound >= least)
    }
}

impl MemoryPlan {
    /// The plan of a training run that is about to begin on this machine; `beside` is the folder of the configuration file. `None`
    /// where the run cannot be sized: the run itself then says which table is wrong.
    ///
    /// # Errors
    /// As [`DryRun::plan`].
    pub fn of(tables: &Tables, beside: &Path) -> Result<Option<Self>, DryRunError> {
        DryRun::of(tables.clone(), beside, None).ok().map(DryRun::planned).transpose()
    }

    /// The plan of a pipeline that is about to begin on a device; `None` where it cannot be sized.
    ///
    /// # Errors
    /// As [`DryRun::plan`].
    pub fn of_pipeline(
        config: &PipelineConfig,
        model: &Path,
        questions: &[Question],
        device: DeviceName,
    ) -> Result<Option<Self>, DryRunError> {
        DryRun::of_pipeline(config, model, questions, device).ok().map(DryRun::planned).transpose()
    }

    /// Bounds the caches of a training as planned.
    pub fn apply(&self, train: &mut TrainConfig) {
        if let KvCache::Bounded(bytes) = self.kv_cache {
            train.kv_cache_memory_bytes = Some(bytes);
        }
    }
}

impl Display for MemoryPlan {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.device != DeviceName::Cpu {
            self.memory.table(f)?;
        }
        let Memory { peak_bytes, peak_during, .. } = &self.memory;
        let peak = format!("{} {}", size(*peak_bytes), during(peak_during));
        let Some(free) = self.free_bytes else { return write!(f, "memory: at most {peak}") };
        write!(f, "memory: at most {peak}; {} has {}", self.device, size(free))?;
        match self.kv_cache {
            KvCache::AsConfigured => Ok(()),
            KvCache::Bounded(bytes) => {
                write!(f, ", so that the policy's KV cache is bounded to {}", size(bytes as u64))
            }
            KvCache::TooLarge => {
                let (certain, time) = self.memory.certain();
                let certain = format!("{} {}", size(certain), during(time));
                write!(
                    f,
                    ", enough for the {certain} that it needs however short its rollouts are, and not for the longest"
                )
            }
        }
    }
}

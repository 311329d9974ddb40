//! Everything that a run would refuse before its first step, without asking a server or reading weights.

use std::path::Path;

use url::Url;
use zerosearch_algorithms::Algorithm;
use zerosearch_generate::{GenerateError, Sampling};
use zerosearch_http::address;
use zerosearch_search::{WebProvider, key_from_env};
use zerosearch_simulator::SimulatorError;
use zerosearch_train::TrainError;

use super::DryRunError;
use super::tokens::simulation;
use crate::config::{EngineConfig, EngineError, GeneratorConfig, RunConfig};

/// Checks every table of a run, and makes its algorithm.
pub(super) fn check(run: &RunConfig) -> Result<Box<dyn Algorithm>, DryRunError> {
    let train = &run.train;
    train.validate()?;
    let algorithm = train.algorithm.clone().build().map_err(TrainError::from)?;
    train.validate_with(&*algorithm)?;
    train.curriculum.build().map_err(TrainError::from)?;
    run.reward.build()?;
    if let Some(generator) = &run.generator {
        generator.check(train)?;
        generator.urls().into_iter().try_for_each(|url| check_address("policy", url))?;
    }
    check_engine("engine", &run.engine)?;
    run.validation.iter().try_for_each(|validation| check_engine("validation.engine", &validation.engine))?;
    Ok(algorithm)
}

fn check_engine(table: &'static str, engine: &EngineConfig) -> Result<(), DryRunError> {
    if let Some((_, simulation)) = simulation(engine) {
        let failed = |error: GenerateError| DryRunError::Engine(EngineError::from(SimulatorError::from(error)));
        Sampling::temperature(simulation.temperature).validate().map_err(failed)?;
        if simulation.max_new_tokens == 0 {
            let (name, value) = ("max_new_tokens", "0".into());
            return Err(failed(GenerateError::Parameter { name, value, expected: "at least 1" }));
        }
    }
    match engine {
        EngineConfig::Simulated(simulator) => {
            let mut urls = simulator.server.iter().flat_map(|server| &server.urls);
            urls.try_for_each(|url| check_address(table, url))
        }
        EngineConfig::Retriever { urls, .. } => urls.iter().try_for_each(|url| check_address(table, url)),
        EngineConfig::Wrapped { engine, .. } => check_engine(table, engine),
        EngineConfig::Simulator { .. } | EngineConfig::Bm25 { .. } | EngineConfig::Web { .. } | EngineConfig::None => {
            Ok(())
        }
    }
}

/// An address with a host, as the clients read it.
fn check_address(table: &'static str, given: &str) -> Result<(), DryRunError> {
    match Url::parse(&address(given, str::to_owned)) {
        Ok(url) if url.has_host() => Ok(()),
        _ => Err(DryRunError::Address { table, url: given.into() }),
    }
}

/// Files, keys and devices of a run that this machine lacks.
pub(super) fn missing(run: &RunConfig) -> Vec<String> {
    let mut missing = Vec::new();
    let mut look = |key: &str, path: &Path| {
        if !path.exists() {
            missing.push(format!("`{key}`: {} is not here", path.display()));
        }
    };
    look("questions", &run.questions);
    if let Some(validation) = &run.validation {
        look("validation.questions", &validation.questions);
    }
    let mut keys = Vec::new();
    let engines = std::iter::once(("engine", &run.engine))
        .chain(run.validation.iter().map(|validation| ("validation.engine", &validation.engine)));
    for (table, engine) in engines {
        files_of(table, engine, &mut look, &mut keys);
    }
    for variable in keys.into_iter().filter(|variable| key_from_env(variable).is_err()) {
        missing.push(format!("the environment variable {variable} is not set"));
    }
    if let Some(
        GeneratorConfig::Sglang { folder: Some(folder), .. } | GeneratorConfig::Vllm { folder: Some(folder), .. },
    ) = &run.generator
        && folder.parent().is_some_and(|parent| !parent.as_os_str().is_empty() && !parent.exists())
    {
        missing.push(format!("`policy.folder`: {} cannot be made, its parent is not here", folder.display()));
    }
    missing
}

fn files_of(table: &str, engine: &EngineConfig, look: &mut impl FnMut(&str, &Path), keys: &mut Vec<String>) {
    match engine {
        EngineConfig::Simulator { .. } | EngineConfig::Retriever { .. } | EngineConfig::None => {}
        EngineConfig::Simulated(simulator) => {
            if let Some(template) = &simulator.template {
                look(&format!("{table}.template"), template);
            }
            if let (Some(_), Some(folder)) = (&simulator.server, &simulator.model) {
                look(&format!("{table}.model"), folder);
            }
            keys.extend(simulator.server.iter().filter_map(|server| server.key_env.clone()));
        }
        EngineConfig::Bm25 { corpus, .. } => look(&format!("{table}.corpus"), corpus),
        EngineConfig::Web { provider } => {
            keys.push(provider.key_variable().into());
            keys.extend((*provider == WebProvider::GoogleCse).then(|| "GOOGLE_CSE_ID".to_string()));
        }
        EngineConfig::Wrapped { engine, wrap } => match &wrap.replay {
            Some(file) => look(&format!("{table}.wrap.replay"), file),
            None => files_of(table, engine, look, keys),
        },
    }
}

//! What the scheduler can be told.

use std::time::Duration;

use thiserror::Error;

/// The scheduler's settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// The name under which pods ask for this scheduler.
    pub scheduler_name: String,
    /// How many bindings may be under way at the same time.
    pub parallel_binds: usize,
    /// The first wait of a pod that failed to be scheduled.
    pub initial_backoff: Duration,
    /// The longest wait.
    pub max_backoff: Duration,
    /// After this time a pod that cannot be scheduled is tried again although nothing happened.
    pub unschedulable_retry: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            scheduler_name: "default-scheduler".to_owned(),
            parallel_binds: 16,
            initial_backoff: Duration::from_secs(1),
            max_backoff: Duration::from_secs(10),
            unschedulable_retry: Duration::from_secs(300),
        }
    }
}

/// Why settings cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ConfigError {
    /// No name.
    #[error("scheduler name must not be empty")]
    NoName,
    /// Nothing could ever be bound.
    #[error("parallel binds must be greater than zero")]
    NoBinds,
    /// Waits that shrink.
    #[error("maximum back-off must not be below the initial one, which must be greater than zero")]
    Backoff,
}

impl Config {
    /// Checks that the settings make sense.
    ///
    /// # Errors
    /// Tells the first setting that does not.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.scheduler_name.is_empty() {
            return Err(ConfigError::NoName);
        }
        if self.parallel_binds == 0 {
            return Err(ConfigError::NoBinds);
        }
        if self.initial_backoff.is_zero() || self.max_backoff < self.initial_backoff {
            return Err(ConfigError::Backoff);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validates() {
        assert_eq!(Config::default().validate(), Ok(()));
        let bad = Config { parallel_binds: 0, ..Config::default() };
        assert_eq!(bad.validate(), Err(ConfigError::NoBinds));
        let bad = Config { max_backoff: Duration::ZERO, ..Config::default() };
        assert_eq!(bad.validate(), Err(ConfigError::Backoff));
    }
}

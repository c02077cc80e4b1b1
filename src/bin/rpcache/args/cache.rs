//! `rpcache cache`, as typed.

use std::str::FromStr;

use clap::{Args as Group, Subcommand};

use super::Redis;
use crate::values::Asked;

#[derive(Debug, Group)]
pub(crate) struct Cache {
    #[command(subcommand)]
    pub(crate) action: CacheAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CacheAction {
    /// Print stored answers; exit code 1 if one is not there
    Get(CacheGet),
    /// List the keys, in no order
    Ls(CacheLs),
    /// Remove stored answers
    Rm(CacheRm),
}

#[derive(Debug, Group)]
pub(crate) struct CacheGet {
    /// Numbers and ranges
    #[arg(required = true, value_name = "N", allow_negative_numbers = true, value_parser = Asked::from_str)]
    pub(crate) asked: Vec<Asked>,

    #[command(flatten)]
    pub(crate) redis: Redis,
}

#[derive(Debug, Group)]
pub(crate) struct CacheLs {
    #[command(flatten)]
    pub(crate) redis: Redis,
}

#[derive(Debug, Group)]
pub(crate) struct CacheRm {
    /// Numbers and ranges
    #[arg(required = true, value_name = "N", allow_negative_numbers = true, value_parser = Asked::from_str)]
    pub(crate) asked: Vec<Asked>,

    #[command(flatten)]
    pub(crate) redis: Redis,
}

//! The embedded DynamoDB.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use dynoxide::Database;
use serde_json::json;
use tokio::net::TcpListener;

use crate::template::Table;

/// How often expired items are swept. AWS promises days; a minute lets tests and users see it happen.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// Opens the database file and makes the tables that are not there yet.
pub fn open(file: &Path, tables: &[Table]) -> anyhow::Result<Database> {
    let path = file.to_str().context("the data folder's path must be UTF-8")?;
    let database = Database::new(path).map_err(|error| anyhow!("DynamoDB file {path}: {error}"))?;
    // Without fsync the file survives the death of the process, not of the machine, like the queues' journal. With it
    // each item of a batch costs a write to the disk.
    database.enable_bulk_loading().map_err(|error| anyhow!("DynamoDB file {path}: {error}"))?;
    let names = database.list_tables(serde_json::from_value(json!({}))?).map_err(|error| anyhow!("{error}"))?;
    let names = serde_json::to_value(names)?;
    for table in tables {
        if names["TableNames"].as_array().is_some_and(|names| names.contains(&json!(table.name))) {
            continue;
        }
        let request = serde_json::from_value(table.create.clone()).with_context(|| format!("table {}", table.name))?;
        database.create_table(request).map_err(|error| anyhow!("table {}: {error}", table.name))?;
        if let Some(attribute) = &table.ttl {
            let request = json!({
                "TableName": table.name,
                "TimeToLiveSpecification": { "AttributeName": attribute, "Enabled": true },
            });
            database
                .update_time_to_live(serde_json::from_value(request)?)
                .map_err(|error| anyhow!("table {}: {error}", table.name))?;
        }
    }
    Ok(database)
}

/// Serves the DynamoDB protocol until the task is aborted.
pub async fn serve(listener: TcpListener, database: Database) {
    dynoxide::server::serve_on(listener, database).await;
}

/// Sweeps expired items until the task is aborted; dynoxide does not by itself.
pub async fn sweep(database: Database) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        let database = database.clone();
        match tokio::task::spawn_blocking(move || database.sweep_ttl()).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "expired items were not swept"),
            Err(error) => tracing::warn!(%error, "expired items were not swept"),
        }
    }
}

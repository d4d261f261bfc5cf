//! What kinds of machines cost.

use std::fmt;

/// What a machine costs, to an order of magnitude: enough to notice a mistake before it is paid for. Prices differ by region,
/// contract and day; whoever wants them exactly asks the cloud.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum PriceClass {
    /// Less than one US dollar an hour.
    Cents,
    /// One to ten.
    Dollars,
    /// Ten to a hundred.
    TensOfDollars,
    /// A kind of machine that this version does not know.
    Unknown,
}

impl fmt::Display for PriceClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cents => "less than 1 US dollar an hour",
            Self::Dollars => "1 to 10 US dollars an hour",
            Self::TensOfDollars => "10 to 100 US dollars an hour",
            Self::Unknown => "at a price that aicert does not know",
        })
    }
}

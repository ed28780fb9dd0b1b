"""Reports: what a store holds of a run or a stage, as one HTML page that needs nothing else. Reads a store and writes pages; measures nothing."""

"""The page on which people name clusters: labels, server and page.

::

    labels, history    the state of one expert and how it changes
    store, places      labels.sqlite; names carried over to a new clustering
    agreement, spreadsheet, export    compare, CSV, obs["phenotype"]
    study_cells, tables, tiles, patches, why, suggest, splitting    what the page shows
    guard, app, serve  the server on this machine
    page/              what the browser loads
"""

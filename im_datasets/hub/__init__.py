"""A selection goes in and a dataset on the Hub comes out; a dataset on the Hub goes in and its checks come out."""
